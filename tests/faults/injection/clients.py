"""Faults from the outside of a process: its clients, its settings, what it learns from."""

import socket
import time
from contextlib import ExitStack
from typing import Final

from tests.faults.injection.restart import EXIT_TIMEOUT, Injected, await_reports, restart
from tests.faults.reports.watch import scrape
from tests.faults.system import STREAMS, THIRD_STREAM, TRAINER, LiveSystem

_CLIENTS: Final = 200
"""Of each port."""
_OTHER_WINDOW: Final = {"PRECTR_ATTRIBUTION_WINDOW": "600"}
_START_TIMEOUT: Final = 60.0


def slow_clients(system: LiveSystem) -> Injected:
    """Each sends the beginning of a request and waits; one that is dropped comes again."""
    ports = [system.ports[name] for name in (*STREAMS, TRAINER)]
    if not system.wait_until(lambda: all(scrape(port) is not None for port in ports), _START_TIMEOUT):
        raise AssertionError("not every process serves metrics")
    recovery = system.start_recovery_timer(STREAMS[0])
    stay_seconds = system.rng.uniform(2, 6)
    deadline = time.monotonic() + stay_seconds
    with ExitStack() as clients:
        while time.monotonic() < deadline:
            for port in ports:
                for _ in range(_CLIENTS // 4):
                    clients.enter_context(_slow_client(port))
            system.run_for(stay_seconds / 4)
            for port in ports:
                if scrape(port) is None:
                    raise AssertionError(f"port {port} does not answer a scrape beside {_CLIENTS} slow clients")
    return Injected(
        f"{_CLIENTS} clients of each metrics port send half a request and wait for {stay_seconds:.1f} s, and every "
        "scrape is answered",
        recovery,
    )


def _slow_client(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=5)
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: local")
    return client


def wrong_settings(system: LiveSystem) -> Injected:
    system.run_for(system.rng.uniform(0, 2))
    system.start(THIRD_STREAM, **_OTHER_WINDOW)
    stderr = system.wait_for_end(THIRD_STREAM, 1, EXIT_TIMEOUT)
    recovery = system.start_recovery_timer(THIRD_STREAM)
    last = stderr.strip().splitlines()[-1]
    if not ("has committed with other settings" in last or "attribution_window is 600" in last):
        raise AssertionError(f"the third process was not refused for its settings: {last}")
    await_reports(system, **_OTHER_WINDOW)
    return Injected("a third process with an attribution window of 600 s joins, and is refused", recovery)


def non_finite_gradient(system: LiveSystem) -> Injected:
    """The trainer serves its metrics a while before it ends, so that the failure is scraped."""
    checkpoints = system.run_dir / "checkpoints"
    if not system.wait_until(lambda: any(checkpoints.glob("0*")), _START_TIMEOUT):
        raise AssertionError("the trainer has written no checkpoint")
    process = system.running[TRAINER]
    system.spoil_gradient()
    await_reports(system, may_end=(TRAINER,))
    recovery = system.start_recovery_timer(TRAINER)
    # Asked to stop, it does not wait for another scrape.
    process.terminate()
    stderr = system.wait_for_end(TRAINER, 1, EXIT_TIMEOUT)
    last = stderr.strip().splitlines()[-1]
    if "gradient" not in last:
        raise AssertionError(f"the trainer ended, and did not name the gradient: {last}")
    restarted = restart(system, TRAINER)
    system.live.wait_for_log(system.running[TRAINER], "resumes from checkpoint")
    return Injected(
        f"a gradient is infinite: the trainer names it and ends{restarted} from its newest checkpoint", recovery
    )
