"""Serves HTTP from one thread, whatever its clients do.

Every connection serves one request within one deadline. Connections are bounded: if all are taken, the one that has
kept the server waiting longest makes room, so idle and slow clients cannot keep a scrape out.
"""

import asyncio
import logging
import re
import resource
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from threading import Thread
from typing import Final, Self

from prectr.ops.http.allowed_hosts import AllowedHosts
from prectr.ops.http.listener import url_host
from prectr.ops.http.request import RefusedRequest, Request, check_size, parse_head
from prectr.ops.http.response import Response, encode_response, text_response

Route = Callable[[Request], Response]

_METHODS: Final = ("GET", "HEAD")
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_READ_SIZE: Final = 4_096
_DISCARD_SIZE: Final = 65_536
_ACCEPT_PAUSE: Final = 0.1
"""Seconds until the next attempt when the system refuses a connection, as without a free descriptor."""
_MIN_CONNECTIONS: Final = 4
_DESCRIPTOR_SHARE: Final = 8
"""One in so many of the descriptors that the process may open is for connections."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What clients may take.

    connections: open at once; fewer if the process may open few files. deadline: seconds for a whole connection, from
    accepting to closing it. grace: seconds for which a connection that is being answered makes no room for others.
    linger: seconds to wait for the client to close after the response.
    """

    connections: int = 32
    deadline: float = 10.0
    grace: float = 2.0
    linger: float = 1.0


@dataclass(slots=True)
class _Connection:
    """A connection. client: address and port. since: of the loop's clock. answering: a response is being sent."""

    socket: socket.socket
    client: str
    since: float
    answering: bool = False


class HttpServer:
    """A running server; close it with `close` or a `with` block.

    GET and HEAD only. `/healthz` tells that it serves; unknown paths are told the known ones.
    """

    def __init__(
        self,
        listener: socket.socket,
        routes: Mapping[str, Route],
        hosts: AllowedHosts,
        limits: Limits = Limits(),
    ) -> None:
        """Start serving.

        Args:
            listener: socket that listens, of `listen`; closed by `close`.
            routes: by path. They are called by the server's thread, one at a time.
            hosts: that requests may name.
            limits: of connections.
        """
        self._listener = listener
        self._routes: Mapping[str, Route] = {**routes, "/healthz": lambda _: text_response(HTTPStatus.OK, "ok\n")}
        self._hosts = hosts
        self._limits = limits
        self._max_connections = min(limits.connections, _affordable_connections())
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._can_accept = True
        self._warned_of_host = False
        self.port: int = listener.getsockname()[1]
        """The port in use."""
        self._loop = asyncio.new_event_loop()
        # Not through the logger of asyncio: the monitor takes errors there for those of Kafka's client.
        self._loop.set_exception_handler(lambda _, context: _log.debug("event loop: %s", context.get("message")))
        self._serving = self._loop.create_task(self._serve())
        self._thread = Thread(target=self._run, name=f"http {self.port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving, drop all connections and free the port."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._serving.cancel)
            self._thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serving)
        self._loop.close()

    async def _serve(self) -> None:
        try:
            await self._accept()
        finally:
            remaining = list(self._connections)
            for task in remaining:
                task.cancel()
            await asyncio.gather(*remaining, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            try:
                accepted, address = await self._loop.sock_accept(self._listener)
            except OSError as error:
                if self._can_accept:
                    _log.warning("port %d: cannot accept connections: %s", self.port, error.strerror)
                self._can_accept = False
                self._make_room()
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            self._can_accept = True
            connection = _Connection(accepted, f"{url_host(address[0])}:{address[1]}", self._loop.time())
            if len(self._connections) < self._max_connections or self._make_room():
                self._admit(connection)
            else:
                self._turn_away(connection)
            # Neither call above has to wait if clients come in quick succession.
            await asyncio.sleep(0)

    def _admit(self, connection: _Connection) -> None:
        task = self._loop.create_task(self._converse(connection))
        self._connections[task] = connection

        def on_done(_: object) -> None:
            self._connections.pop(task, None)
            connection.socket.close()

        # Not in the task: one that is cancelled before it starts runs no line of its own.
        task.add_done_callback(on_done)

    def _make_room(self) -> bool:
        """Drop the oldest connection that keeps the server waiting; returns whether there was one."""
        answering_since = self._loop.time() - self._limits.grace
        for task, connection in self._connections.items():
            if not connection.answering or connection.since <= answering_since:
                _log.debug("%s: dropped in favour of a new connection", connection.client)
                del self._connections[task]
                task.cancel()
                return True
        return False

    def _turn_away(self, connection: _Connection) -> None:
        _log.debug("%s: turned away: %d responses are being sent", connection.client, len(self._connections))
        response = text_response(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; try again\n")
        with connection.socket, suppress(OSError):
            connection.socket.send(encode_response(response, head_only=False))
            connection.socket.shutdown(socket.SHUT_WR)
            # Closing with unread bytes would reset the connection before the client has read the response.
            connection.socket.recv(_READ_SIZE)

    async def _converse(self, connection: _Connection) -> None:
        """Serve one request within the deadline; every failure of the client is one line for debugging."""
        try:
            async with asyncio.timeout(self._limits.deadline):
                await self._exchange(connection)
        except TimeoutError:
            _log.debug("%s: dropped after %g s", connection.client, self._limits.deadline)
        except OSError as error:
            _log.debug("%s: connection lost: %s", connection.client, error.strerror)

    async def _exchange(self, connection: _Connection) -> None:
        head_only = False
        try:
            head = await self._read_head(connection.socket)
            if head is None:
                _log.debug("%s: closed by the client before a request", connection.client)
                return
            request = parse_head(head)
            head_only = request.method == "HEAD"
            response = self._respond(request)
        except RefusedRequest as refusal:
            _log.debug("%s: refused: %s", connection.client, refusal.reason)
            response = text_response(refusal.status, f"{refusal.reason}\n")
        connection.answering = True
        await self._loop.sock_sendall(connection.socket, encode_response(response, head_only=head_only))
        connection.answering = False
        # The client has its response: that it closes late, or by a reset, is no failure.
        with suppress(OSError):
            connection.socket.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(self._limits.linger):
                await self._discard_input(connection.socket)

    async def _read_head(self, client: socket.socket) -> bytes | None:
        """Read up to the empty line that ends the head; None if the client closes before."""
        received = bytearray()
        while part := await self._loop.sock_recv(client, _READ_SIZE):
            searched = max(0, len(received) - 3)
            received += part
            if end := _END_OF_HEAD.search(received, searched):
                return bytes(received[: end.start()])
            check_size(len(received) if b"\n" not in received else 0, len(received))
        return None

    async def _discard_input(self, client: socket.socket) -> None:
        """Read until the client closes: closing with unread bytes would reset the connection and lose the response."""
        while await self._loop.sock_recv(client, _DISCARD_SIZE):
            # Reading does not wait while there are bytes.
            await asyncio.sleep(0)

    def _respond(self, request: Request) -> Response:
        self._check_host(request)
        if request.method not in _METHODS:
            return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or HEAD\n", Allow=", ".join(_METHODS))
        route = self._routes.get(request.path)
        if route is None:
            return text_response(HTTPStatus.NOT_FOUND, f"not found; available: {', '.join(self._routes)}\n")
        try:
            return route(request)
        except Exception:  # noqa: BLE001 (a bug in a response must not end the server)
            _log.exception("%s: no response could be made", request.path)
            return text_response(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; see the log of the process\n")

    def _check_host(self, request: Request) -> None:
        try:
            self._hosts.check(request.host)
        except RefusedRequest as refusal:
            if refusal.status == HTTPStatus.MISDIRECTED_REQUEST and not self._warned_of_host:
                self._warned_of_host = True
                _log.warning("port %d: a request was refused: %s", self.port, refusal.reason)
            raise


def _affordable_connections() -> int:
    """The connections that leave the process most of its file descriptors."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(_MIN_CONNECTIONS, files // _DESCRIPTOR_SHARE)
