"""Serves the metrics of a process to Prometheus over HTTP.

The event path never touches Prometheus: the process hands over a snapshot of its numbers from time to time, and each
scrape renders the latest snapshot. One exporter per process.
"""

import errno
import logging
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from prectr.state.errors import PrectrError, UsageError

LOOPBACK: Final = "127.0.0.1"
"""The default address: metrics are business figures, so other machines see them only if configured."""

Snapshot = TypeVar("Snapshot")
_log = logging.getLogger(__name__)


class _SnapshotCollector(Collector, Generic[Snapshot]):
    """Renders the latest snapshot. `snapshot` is replaced as a whole, which is atomic."""

    def __init__(self, render: Callable[[Snapshot], Iterator[Metric]]) -> None:
        self.snapshot: Snapshot | None = None
        self._render = render

    def collect(self) -> Iterator[Metric]:
        snapshot = self.snapshot
        if snapshot is not None:
            yield from self._render(snapshot)


class Exporter(Generic[Snapshot]):
    """A running exporter; close it with `close` or a `with` block."""

    def __init__(self, render: Callable[[Snapshot], Iterator[Metric]], port: int, address: str = LOOPBACK) -> None:
        """Start serving over HTTP; there are no metrics before the first `update`.

        Args:
            render: makes the metrics of a snapshot; called by the server's threads at each scrape.
            port: 0 picks a free one.
            address: of this machine.

        Raises:
            UsageError: the port is out of range.
            PrectrError: the port is in use, or the address does not belong to this machine.
        """
        if not 0 <= port <= 65535:
            raise UsageError(f"metrics port {port} is out of range: use 1 to 65535, or 0 for a free port")
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
                    "another process may use the port: choose another --metrics-port"
                    if in_use
                    else "use an address of this machine and a port that this user may open"
                )
            ) from error
        _log.info("metrics: http://%s:%d/metrics", host, self.port)

    @property
    def port(self) -> int:
        """The port in use."""
        return self._server.server_port

    def update(self, snapshot: Snapshot) -> None:
        """Serve `snapshot` from now on; it must not change afterwards."""
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
