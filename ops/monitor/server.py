"""Serves the monitor's page and its JSON, rendered from the latest snapshot."""

import logging
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Self

import msgspec

from prectr.ops.http.allowed_hosts import AllowedHosts
from prectr.ops.http.listener import listen, url_host
from prectr.ops.http.request import Request
from prectr.ops.http.response import Response, readiness_response
from prectr.ops.http.server import HttpServer
from prectr.ops.monitor.current_quality import CurrentQuality, MonitorSnapshot, current_quality, unready_reason
from prectr.ops.monitor.page import render

_log = logging.getLogger(__name__)


class PageServer:
    """A running server of `/`, `/quality.json`, `/health` and `/readyz`; close it with `close` or a `with` block."""

    def __init__(
        self, port: int, address: str, clock: Callable[[], float] = time.time, allowed_hosts: Sequence[str] = ()
    ) -> None:
        """Start serving over HTTP.

        Args:
            port: 0 picks a free one.
            address: of this machine.
            clock: returns seconds since the epoch.
            allowed_hosts: names of this machine that a request may name, besides those of `AllowedHosts`.

        Raises:
            UsageError: the port is out of range, or an allowed host is not a host name.
            PrectrError: the port is in use, or the address does not belong to this machine.
        """
        self._snapshot = MonitorSnapshot(
            status="starting", received=0, rejected={}, retained_windows=0, sources=[], quality={}
        )
        self._clock = clock
        hosts = AllowedHosts(address, allowed_hosts)
        listener = listen(address, port, served="the page", port_option="--port")
        routes = {
            "/": self._page,
            "/quality.json": self._json,
            "/health": self._health,
            "/readyz": lambda _: readiness_response(unready_reason(self._snapshot)),
        }
        self._server = HttpServer(listener, routes, hosts)
        _log.info("page: http://%s:%d/", url_host(address), self.port)

    @property
    def port(self) -> int:
        """The port in use."""
        return self._server.port

    def update(self, snapshot: MonitorSnapshot) -> None:
        """Serve `snapshot` from now on; it must not change afterwards."""
        self._snapshot = snapshot

    def current_quality(self) -> CurrentQuality:
        """The current quality."""
        return current_quality(self._snapshot, self._clock())

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _page(self, _: Request) -> Response:
        return Response(content_type="text/html; charset=utf-8", body=render(self.current_quality()).encode())

    def _json(self, _: Request) -> Response:
        return Response(content_type="application/json", body=msgspec.json.encode(self.current_quality()))

    def _health(self, _: Request) -> Response:
        """The status in any case; the code tells whether it is well."""
        snapshot = self._snapshot
        status = HTTPStatus.SERVICE_UNAVAILABLE if unready_reason(snapshot) else HTTPStatus.OK
        return Response(status=status, body=snapshot.status.encode())
