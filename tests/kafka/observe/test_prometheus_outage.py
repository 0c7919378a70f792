"""A Prometheus outage: no process waits for it, and the first scrape after it has what happened meanwhile."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from prectr.ops.metrics.replay import serve_metrics
from testkit.kafka_broker import free_ports
from tests.local_stack.prometheus import Server
from tests.local_stack.tools import needed
from tests.ops.metrics.test_replay import snapshot_of

AWAY = 65.0
"""Seconds: longer than a minute, and than Prometheus' staleness period."""
JOINED = 'prectr_clicks_total{outcome="joined"}'


@contextmanager
def prometheus(folder: Path, port: int, exporter: int) -> Iterator[Server]:
    """A Prometheus that scrapes an exporter every second; killed at the end, its data stay in `folder`."""
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: replay, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}]\n"
    )
    flags = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(
            [needed("prometheus"), *flags, f"--web.listen-address=127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Server(port)
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + 120
    while True:
        with suppress(OSError):
            if condition():
                return
        assert time.monotonic() < end, (folder / "prometheus.log").read_text()
        time.sleep(0.2)


def test_a_minute_without_prometheus_loses_no_count(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    counted = snapshot_of({})
    clicks = counted.outcomes.clicks
    with serve_metrics(0) as metrics:
        metrics.update(counted)
        with prometheus(tmp_path, port, metrics.port) as server:
            until(lambda: server.one(JOINED) == clicks.joined, tmp_path)
        more = msgspec.structs.replace(clicks, joined=clicks.joined + 1000, received=clicks.received + 1000)
        metrics.update(
            msgspec.structs.replace(counted, outcomes=msgspec.structs.replace(counted.outcomes, clicks=more))
        )
        time.sleep(AWAY)
        with prometheus(tmp_path, port, metrics.port) as server:
            until(lambda: server.one(JOINED) == clicks.joined + 1000, tmp_path)
            # The gap is in the count's growth: what came meanwhile is seen, once.
            grown = server.one(f"{JOINED} - min_over_time({JOINED}[10m])")
    assert grown == 1000
