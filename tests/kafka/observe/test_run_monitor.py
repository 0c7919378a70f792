"""`prectr run` with a monitor: it is one of the processes that are kept running, and ends with them."""

import json
import os
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from testkit.command import prectr
from tests.kafka.live import Live
from tests.kafka.observe.test_run import Run
from tests.kafka.worlds import simulated
from tests.kit.observe.scrape import scrape_samples

pytestmark = pytest.mark.usefixtures("broker")


def free_ports(count: int) -> int:
    """The first of some ports in a row that are free."""
    for port in range(30_000, 32_000, count):
        with ExitStack() as stack, suppress(OSError):
            for each in range(port, port + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", each))
            return port
    raise AssertionError("no free ports")


def test_the_monitor_runs_beside_the_others_is_started_again_and_ends_with_them(live: Live, tmp_path: Path) -> None:
    port = free_ports(4)
    page = port + 3
    run = Run(live, "--metrics-port", str(port), "--monitor-port", str(page))

    def now() -> dict[str, Any]:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{page}/quality.json", timeout=10) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
        return {"models": [], "status": "not there"}

    def shown() -> int:
        return sum(int(model["windows"]["run"]["all"]["pages"]) for model in now()["models"])

    run.until(lambda: now()["status"] == "reading")
    live.load(simulated(tmp_path, pages=600))
    run.until(lambda: shown() > 300)
    pages = shown()
    monitor = run.child("monitor")
    assert monitor is not None
    os.kill(monitor, signal.SIGKILL)
    run.until(lambda: run.child("monitor") not in (monitor, None) and shown() >= pages)
    labels = frozenset({("model", "lr"), ("segment", "all")})
    assert scrape_samples(port + 1)["prectr_scored_pages_total", labels] == shown()
    run.process.send_signal(signal.SIGINT)
    run.ended()
    assert run.left() == []


def test_a_monitor_beside_until_end_is_wrong_use() -> None:
    done = prectr("run", "--bootstrap", "127.0.0.1:1", "--until-end", "--monitor-port", "9480")
    assert done.returncode == 2
    assert "a monitor does not end" in done.stderr
