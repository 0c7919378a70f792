"""The ports on which the processes of a live run serve their metrics."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from prectr.ops.http.port_holder import find_port_holder
from prectr.state.errors import PrectrError

TARGETS_FILE: Final = "targets.json"
"""In the run folder: the ports, as Prometheus reads them."""
_RETRY_INTERVAL: Final = 0.5
_CHILD: Final = "prectr.ops.live.parent_watchdog"
_log = logging.getLogger(__name__)
_FIXED_PORTS: Final = ("train", "monitor")


def metrics_port_of(first: int, name: str) -> int:
    """The trainer's port is the first, the monitor's the next, those of the stream workers follow.

    No port depends on the number of stream workers: with one more, Prometheus goes on scraping the others where they
    were.
    """
    if name in _FIXED_PORTS:
        return first + _FIXED_PORTS.index(name)
    return first + len(_FIXED_PORTS) - 1 + int(name.removeprefix("stream-"))


def await_free_ports(ports: Sequence[tuple[str, int]], stop: Callable[[], bool], grace_period: float) -> None:
    """Check that no server has one of the ports, before any process is started.

    A process of an earlier run that was killed ends within the grace period, so it is waited for. A connection that
    has a port is left to the process that is to listen there.

    Args:
        ports: each with the name of its process.
        stop: ends the wait.
        grace_period: seconds.

    Raises:
        PrectrError: another server has a port.
    """
    deadline = time.monotonic() + grace_period
    for name, port in ports:
        logged = is_foreign = False
        while not stop() and (holder := find_port_holder(port)) is not None and holder.listens:
            # Seen twice: a process that is just ending has no command line any more.
            was_foreign, is_foreign = is_foreign, _CHILD not in holder.command
            if (is_foreign and was_foreign) or time.monotonic() >= deadline:
                raise PrectrError(f"port {port}, for {name}: {holder} has it: end that process, or choose another port")
            if not is_foreign and not logged:
                logged = True
                _log.warning("port %d, for %s: %s, of an earlier run, has it: waiting for its end", port, name, holder)
            time.sleep(_RETRY_INTERVAL)
