"""Why a broker does not answer, as far as a connection of our own tells."""

import errno
import socket
from contextlib import closing
from threading import Thread
from typing import Final

_TIMEOUT: Final = 0.7
"""Seconds for all addresses, the look-up of their names included."""
NOT_ANSWERING: Final = (
    "Kafka takes connections and answers nothing: see the logs of its brokers, and whether they are stopped, or out of "
    "memory, disk or descriptors"
)


def connection_advice(bootstrap: str) -> tuple[bool, str]:
    """Connect to each address. Returns whether one of them takes a connection, and what to do.

    Args:
        bootstrap: host:port, several separated by commas.
    """
    addresses = bootstrap.split(",")
    found: dict[str, str] = {}
    # A name server that is away holds a look-up for longer than any timeout of a socket.
    threads = [Thread(target=_connect, args=(address, found), daemon=True) for address in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_TIMEOUT)
    failures = {address: found.get(address, f"no answer in {_TIMEOUT:g} s") for address in addresses}
    if not all(failures.values()):
        return True, NOT_ANSWERING
    if set(failures.values()) == {_REFUSED}:
        where = ", ".join(addresses)
        return False, f"nothing listens at {where} (connection refused): start the broker there, or correct --bootstrap"
    reasons = ", ".join(f"{address}: {reason}" for address, reason in failures.items())
    return False, f"no connection ({reasons}): check the address in --bootstrap, the network and its firewall"


_REFUSED: Final = "connection refused"


def _connect(address: str, found: dict[str, str]) -> None:
    """Note why an address takes no connection; empty if it does."""
    host, _, port = address.rpartition(":")
    try:
        with closing(socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT)):
            found[address] = ""
    except TimeoutError:
        return
    except OSError as error:
        found[address] = _REFUSED if error.errno == errno.ECONNREFUSED else error.strerror or str(error)
