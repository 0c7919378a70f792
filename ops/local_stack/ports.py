"""Checks that the ports of `make up` are free."""

import socket
from collections.abc import Mapping
from contextlib import closing

from prectr.state.errors import PrectrError

_PORT_OFFSET = 100


def check_ports(ports: Mapping[int, tuple[str, str]]) -> None:
    """Raise PrectrError, with advice, if a port is in use.

    Args:
        ports: by port, the service and the variable that sets the port.
    """
    in_use = [
        f"port {port} ({service}) is in use: stop the process that uses it, or choose another port: "
        f"make up {variable}={port + _PORT_OFFSET}"
        for port, (service, variable) in ports.items()
        if not is_free(port)
    ]
    if in_use:
        raise PrectrError("\n".join(in_use))


def is_free(port: int) -> bool:
    """Whether no process listens on a port of 127.0.0.1."""
    with closing(socket.socket()) as probe:
        # As servers do: a recently closed connection does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
