"""Serves the monitor's page and its JSON, rendered from the latest snapshot."""

import errno
import logging
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final, Self

import msgspec

from prectr.ops.monitor.current_quality import CurrentQuality, MonitorSnapshot, current_quality
from prectr.ops.monitor.page import render
from prectr.state.errors import PrectrError, UsageError

_log = logging.getLogger(__name__)
_IDLE_SECONDS: Final = 30.0
"""Seconds after which an idle client is disconnected."""


class _Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


class PageServer:
    """A running server of `/`, `/quality.json` and `/health`; close it with `close` or a `with` block."""

    def __init__(self, port: int, address: str, clock: Callable[[], float] = time.time) -> None:
        """Start serving over HTTP.

        Args:
            port: 0 picks a free one.
            address: of this machine.
            clock: returns seconds since the epoch.

        Raises:
            UsageError: the port is out of range.
            PrectrError: the port is in use, or the address does not belong to this machine.
        """
        if not 0 <= port <= 65535:
            raise UsageError(f"port {port} is out of range: use 1 to 65535, or 0 for a free port")
        self._snapshot = MonitorSnapshot(
            status="starting", received=0, rejected={}, retained_windows=0, sources=[], quality={}
        )
        self._clock = clock
        try:
            server = _Server6 if ":" in address else ThreadingHTTPServer
            self._server = server((address, port), self._handler())
        except (OSError, UnicodeError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            raise PrectrError(
                f"cannot serve the page on {address}:{port}: {getattr(error, 'strerror', None) or error}; "
                + (
                    "another process may use the port: choose another --port"
                    if in_use
                    else "use an address of this machine and a port that this user may open"
                )
            ) from error
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, name="page", daemon=True)
        self._thread.start()
        _log.info("page: http://%s:%d/", f"[{address}]" if ":" in address else address, self.port)

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.server_port)

    def update(self, snapshot: MonitorSnapshot) -> None:
        """Serve `snapshot` from now on; it must not change afterwards."""
        self._snapshot = snapshot

    def current_quality(self) -> CurrentQuality:
        """The current quality."""
        return current_quality(self._snapshot, self._clock())

    def respond(self, path: str) -> tuple[str, bytes] | None:
        """Content type and content of a path; None for an unknown path."""
        path = path.partition("?")[0]
        if path == "/":
            return "text/html; charset=utf-8", render(self.current_quality()).encode()
        if path == "/quality.json":
            return "application/json", msgspec.json.encode(self.current_quality())
        if path == "/health":
            return "text/plain; charset=utf-8", self._snapshot.status.encode()
        return None

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        respond = self.respond

        class Handler(BaseHTTPRequestHandler):
            timeout = _IDLE_SECONDS

            def do_GET(self) -> None:
                found = respond(self.path)
                kind, content = found or (
                    "text/plain; charset=utf-8",
                    b"not found; available: /, /quality.json, /health\n",
                )
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.send_header(
                    "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
                )
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Requests are not logged."""

        return Handler
