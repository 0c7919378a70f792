"""Whether the addresses that the brokers advertise can be reached from here.

A client connects to the bootstrap address once, and from then on to the addresses that the brokers advertise. Where
those cannot be reached, as behind a port mapping of containers, the client library reports timeouts of whatever was
asked next, and never an address.
"""

import socket
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from prectr.stream.kafka.client.client_internals import BrokerAddress

_CONNECT_TIMEOUT: Final = 2.0
_CHECK_INTERVAL: Final = 10.0
"""Seconds for which an address that was reached is not tried again."""
_reached_at: Final[dict[BrokerAddress, float]] = {}


def unreachable_listeners(addresses: Sequence[BrokerAddress]) -> str:
    """Return the advertised addresses with the cause if none of them takes a connection; empty if one does.

    A single broker that is down is no reason to stop: its partitions move to others.
    """
    failures = []
    for address in addresses:
        if time.monotonic() - _reached_at.get(address, float("-inf")) < _CHECK_INTERVAL:
            return ""
        try:
            with closing(socket.create_connection(address, _CONNECT_TIMEOUT)):
                _reached_at[address] = time.monotonic()
                return ""
        except OSError as error:
            host = f"[{address.host}]" if ":" in address.host else address.host
            failures.append(f"{host}:{address.port} ({error.strerror or error})")
    return ", ".join(failures)
