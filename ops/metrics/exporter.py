"""Serves a program's figures to Prometheus: whichever were handed over last, rendered when they are asked for.

Nothing on the event path touches Prometheus: a whole snapshot is handed over now and then, and a scrape renders the
latest. Names begin with prectr_. Labels are only stage, partition, model, segment, level, window, reason and outcome:
never a query, a user or an item.
"""

import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from prectr.state.errors import PrectrError, UsageError

LOOPBACK: Final = "127.0.0.1"
"""Where metrics are served unless told otherwise: figures of a business are not for every network."""

Snapshot = TypeVar("Snapshot")
Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)
_log = logging.getLogger(__name__)


class _SnapshotCollector(Collector, Generic[Snapshot]):
    """Renders the latest snapshot; `snapshot` is replaced as a whole, which is atomic."""

    def __init__(self, render: Callable[[Snapshot], Iterator[Metric]]) -> None:
        self.snapshot: Snapshot | None = None
        self._render = render

    def collect(self) -> Iterator[Metric]:
        snapshot = self.snapshot
        if snapshot is not None:
            yield from self._render(snapshot)


class Exporter(Generic[Snapshot]):
    """A running exporter; `close` it, or use it in a `with`."""

    def __init__(self, render: Callable[[Snapshot], Iterator[Metric]], port: int, address: str = LOOPBACK) -> None:
        """Serve over HTTP on `address`:`port` (0: any free port) until closed; nothing before the first `update`.

        render: makes the metrics of a snapshot; called by the server's threads, at each scrape.

        PrectrError: the port is taken or the address not ours; UsageError: no such port.
        """
        if not 0 <= port <= 65535:
            raise UsageError(
                f"metrics port {port} is out of range: give one from 1 to 65535, or 0 for any that is free"
            )
        self._latest = _SnapshotCollector(render)
        registry = CollectorRegistry()
        registry.register(self._latest)
        host = f"[{address}]" if ":" in address else address
        try:
            self._server, self._thread = start_http_server(port, addr=address, registry=registry)
        except (OSError, UnicodeError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            raise PrectrError(
                f"cannot serve metrics on {host}:{port}: {getattr(error, 'strerror', None) or error}; "
                + (
                    "another process may hold the port: give another one with --metrics-port"
                    if in_use
                    else "it must be an address of this machine, and a port that this user may open"
                )
            ) from error
        _log.info("metrics: http://%s:%d/metrics", host, self.port)

    @property
    def port(self) -> int:
        """The port that is served."""
        return self._server.server_port

    def update(self, snapshot: Snapshot) -> None:
        """Let scrapes from now on see `snapshot`, which must not change afterwards."""
        self._latest.snapshot = snapshot

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def add_samples(family: Family, samples: Iterable[tuple[Sequence[str], float | None]]) -> Family:
    """`family` with a sample for each pair of label values and figure; a figure that is None has none."""
    for labels, value in samples:
        if value is not None:
            family.add_metric(labels, value)
    return family
