"""Finds out who holds a TCP port of this machine, as far as Linux tells this user."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENS: Final = "0A"
_MAX_COMMAND: Final = 80
"""Characters of it in a message."""


class PortHolder(NamedTuple):
    """A socket with the port.

    listens: whether it is a server's; otherwise it is a connection, which ends. pid: its process; None if that is
    another user's, or has ended. command: of the process, as far as it is known.
    """

    listens: bool
    pid: int | None
    command: str

    def __str__(self) -> str:
        kind = "a server" if self.listens else "a connection"
        if self.pid is None:
            return f"{kind} of a process that this user cannot see"
        return f"{kind} of process {self.pid} ({self.command[:_MAX_COMMAND]})"


def find_port_holder(port: int) -> PortHolder | None:
    """Return who holds a port: of several sockets, one that listens. None if nobody is found."""
    sockets = sorted(_sockets(port), key=lambda found: not found[0])
    if not sockets:
        return None
    listens, inode = sockets[0]
    pid = _process_of(inode)
    return PortHolder(listens, pid, "" if pid is None else _command(pid))


def _sockets(port: int) -> Iterator[tuple[bool, str]]:
    """Yield for each socket with a port whether it listens, and its inode."""
    for table in _TABLES:
        try:
            rows = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            _, local, _, state, *rest = row.split()
            if int(local.rpartition(":")[2], 16) == port:
                yield state == _LISTENS, rest[5]


def _process_of(inode: str) -> int | None:
    link = f"socket:[{inode}]"
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                if os.readlink(descriptor) == link:
                    return int(process.name)
            except OSError:
                continue
    return None


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "ended since"
    return " ".join(words).strip()
