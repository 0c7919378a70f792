"""Whether the ports of `make up` are free."""

import socket
from collections.abc import Mapping
from contextlib import closing

from prectr.state.errors import PrectrError

_PORT_OFFSET = 100


def check_ports(ports: Mapping[int, tuple[str, str]]) -> None:
    """Make sure that every port is free. ports: what shall be served there, and the variable that moves it.

    Raises:
        PrectrError: some are in use; names each, and how to choose another.
    """
    in_use = [
        f"port {port} ({what}) is in use: end what holds it, or choose another: make up {variable}={port + _PORT_OFFSET}"
        for port, (what, variable) in ports.items()
        if not is_free(port)
    ]
    if in_use:
        raise PrectrError("\n".join(in_use))


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1."""
    with closing(socket.socket()) as probe:
        # As servers do: a connection that has just ended there is in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
