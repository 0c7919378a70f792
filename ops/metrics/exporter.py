"""Serves the metrics of a process to Prometheus over HTTP.

The event path never touches Prometheus: the process hands over a snapshot of its numbers from time to time, and each
scrape renders the latest snapshot. One exporter per process.
"""

import gzip
import logging
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from prectr.ops.http.allowed_hosts import AllowedHosts
from prectr.ops.http.listener import listen, url_host
from prectr.ops.http.request import Request
from prectr.ops.http.response import Response, readiness_response
from prectr.ops.http.server import HttpServer

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
    """A running exporter of `/metrics` and `/readyz`; close it with `close` or a `with` block."""

    def __init__(
        self,
        render: Callable[[Snapshot], Iterator[Metric]],
        port: int,
        address: str = LOOPBACK,
        *,
        unready_reason: Callable[[Snapshot], str] = lambda _: "",
        allowed_hosts: Sequence[str] = (),
    ) -> None:
        """Start serving over HTTP; there are no metrics before the first `update`.

        Args:
            render: makes the metrics of a snapshot; called by the server's thread at each scrape.
            port: 0 picks a free one.
            address: of this machine.
            unready_reason: why a process with this snapshot is not ready; empty if it is.
            allowed_hosts: names of this machine that a request may name, besides those of `AllowedHosts`.

        Raises:
            UsageError: the port is out of range, or an allowed host is not a host name.
            PrectrError: the port is in use, or the address does not belong to this machine.
        """
        self._latest = _SnapshotCollector(render)
        self._unready_reason = unready_reason
        self._registry = CollectorRegistry()
        self._registry.register(self._latest)
        hosts = AllowedHosts(address, allowed_hosts)
        listener = listen(address, port, served="metrics", port_option="--metrics-port")
        routes = {"/metrics": self._metrics, "/": self._metrics, "/readyz": self._readiness}
        self._server = HttpServer(listener, routes, hosts)
        _log.info("metrics: http://%s:%d/metrics", url_host(address), self.port)

    @property
    def port(self) -> int:
        """The port in use."""
        return self._server.port

    def update(self, snapshot: Snapshot) -> None:
        """Serve `snapshot` from now on; it must not change afterwards."""
        self._latest.snapshot = snapshot

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _metrics(self, request: Request) -> Response:
        """The metrics in the format that the client prefers."""
        try:
            encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):
            # The client names a version that is no version.
            encoder, content_type = choose_encoder("")
        body = encoder(self._registry)
        headers = {"Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(request.headers.get("accept-encoding", "")):
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        return Response(content_type=content_type, body=body, headers=headers)

    def _readiness(self, _: Request) -> Response:
        snapshot = self._latest.snapshot
        return readiness_response("starting" if snapshot is None else self._unready_reason(snapshot))
