"""Opens the socket that a server listens on."""

import errno
import logging
import socket
import time
from typing import Final

from prectr.ops.http.port_holder import find_port_holder
from prectr.state.errors import PrectrError, UsageError

_BACKLOG: Final = 128
_MAX_WAIT: Final = 60.0
"""Seconds to wait for a connection that has been given the port, to the broker for instance."""
_RETRY_INTERVAL: Final = 0.5
_log = logging.getLogger(__name__)


def listen(address: str, port: int, *, served: str, port_option: str) -> socket.socket:
    """Open a TCP socket that listens; waits up to a minute for a port that only a connection holds.

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
    begun, is_logged = time.monotonic(), False
    while True:
        try:
            return _open(address, port)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            failed = f"cannot serve {served} on {url_host(address)}:{port}: {reason}; "
            if not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
                raise PrectrError(
                    f"{failed}use an address of this machine and a port that this user may open"
                ) from error
            holder = find_port_holder(port)
            if (holder is not None and holder.listens) or time.monotonic() - begun >= _MAX_WAIT:
                who = "another process may use the port" if holder is None else f"{holder} has the port"
                raise PrectrError(f"{failed}{who}: choose another {port_option}") from error
            if holder is not None and not is_logged:
                is_logged = True
                _log.warning("port %d for %s: %s has it: waiting for its end", port, served, holder)
        time.sleep(_RETRY_INTERVAL)


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
