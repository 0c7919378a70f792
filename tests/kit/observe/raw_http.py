"""Sends bytes to an HTTP server as they are, and reads the response with the standard library's client."""

import http.client
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

TIMEOUT = 30.0


class Answer(NamedTuple):
    """A response. headers: by name in lower case, values of equal names joined."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def connect(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    """Connect to a port of this machine. receive_buffer: bytes that the system may hold unread for the client."""
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(TIMEOUT)
    try:
        client.connect(("127.0.0.1", port))
    except OSError:
        client.close()
        raise
    return client


def read_answer(client: socket.socket, method: str = "GET") -> Answer:
    """Read the response to a request that has been sent."""
    response = http.client.HTTPResponse(client, method=method)
    response.begin()
    # The client reads no body after HEAD, even if there is one.
    body = response.fp.read() if method == "HEAD" else response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, body)


def exchange(port: int, request: bytes, method: str = "GET") -> Answer:
    """Send the bytes of a request and read the response."""
    with connect(port) as client:
        client.sendall(request)
        return read_answer(client, method)


def ask(port: int, path: str = "/", *, method: str = "GET", host: str = "localhost", **headers: str) -> Answer:
    """Send a well-formed request without a body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return exchange(port, "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n", method)


def reset(client: socket.socket) -> None:
    """Close a connection by a reset, as a client that is killed does."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fails if it does not come true."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
