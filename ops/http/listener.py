"""Opens the socket that a server listens on."""

import errno
import socket
from typing import Final

from prectr.state.errors import PrectrError, UsageError

_BACKLOG: Final = 128


def listen(address: str, port: int, *, served: str, port_option: str) -> socket.socket:
    """Open a TCP socket that listens.

    Args:
        address: of this machine, or a name of it; of several addresses of a name, the IPv4 one.
        port: 0 picks a free one.
        served: what is served, for errors.
        port_option: that sets the port, for errors.

    Raises:
        UsageError: the port is out of range.
        PrectrError: the port is in use, or the address does not belong to this machine.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"{port_option} {port} is out of range: use 1 to 65535, or 0 for a free port")
    try:
        return _open(address, port)
    except (OSError, UnicodeError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        raise PrectrError(
            f"cannot serve {served} on {url_host(address)}:{port}: {getattr(error, 'strerror', None) or error}; "
            + (
                f"another process may use the port: choose another {port_option}"
                if in_use
                else "use an address of this machine and a port that this user may open"
            )
        ) from error


def url_host(address: str) -> str:
    """An address as URLs have it: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def _open(address: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, target = min(found, key=lambda each: each[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        # A restarted process need not wait for connections of the previous one.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
