"""Which host names a request may name: a defence against DNS rebinding.

A website that a user visits can let its own name resolve to 127.0.0.1 and then read what is served there, as the
browser takes it for the same site. It cannot choose the Host header, which carries the website's name.
"""

import re
import socket
from collections.abc import Iterable
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from prectr.ops.http.request import RefusedRequest
from prectr.state.errors import UsageError

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]{1,253})(?::\d{0,5})?")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,253}")


class AllowedHosts:
    """The names by which a server may be addressed.

    IP addresses are always allowed, since no website has one as its name; so are localhost and the name of this
    machine.
    """

    def __init__(self, address: str, names: Iterable[str] = ()) -> None:
        """Collect the names.

        Args:
            address: that the server listens on.
            names: further ones, without port.

        Raises:
            UsageError: one of them is not a host name.
        """
        for name in names:
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"--allowed-host {name!r} is not a host name: give one name without scheme and port, such as "
                    "prectr.example.org; several in several --allowed-host"
                )
        machine = socket.gethostname()
        self._names = {_normalized(name) for name in ("localhost", machine, machine.partition(".")[0], address, *names)}

    def check(self, host: str | None) -> None:
        """Check the host of a request, with or without port; None for a request of HTTP/1.0 that names none.

        Raises:
            RefusedRequest: the host is malformed or not allowed.
        """
        if host is None:
            return
        found = _HOST.fullmatch(host)
        if found is None:
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, "malformed Host header")
        name = _normalized(found[1])
        if name not in self._names and not _is_address(name):
            raise RefusedRequest(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"the host name {name} is not allowed here: use localhost or an IP address, or allow the name by "
                f"--allowed-host {name} of prectr stream, train, monitor or ingest (environment: PRECTR_ALLOWED_HOSTS)",
            )


def _normalized(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
