"""What the scenarios need to know of snapshots: the flags, and how they lie in their folder."""

import inspect
import random
from pathlib import Path
from typing import Final

from ops.commands.stream import stream

_KNOWN: Final = inspect.signature(stream).parameters
AVAILABLE: Final = "snapshots" in _KNOWN
"""Whether the program has them."""
FLAGS: Final = ("--snapshot-every", "2") if "snapshot_every" in _KNOWN else ()
"""Often enough for a scenario of a minute."""


def stored(folder: Path) -> list[Path]:
    """The files of all snapshots, the newest first."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def truncate(folder: Path, rng: random.Random) -> str:
    """Cut one of the newest files short; returns which, and how."""
    victim = rng.choice([path for path in stored(folder)[:8] if path.stat().st_size])
    size = victim.stat().st_size
    left = rng.randrange(size)
    with victim.open("r+b") as file:
        file.truncate(left)
    return f"{victim.relative_to(folder)} cut from {size} to {left} bytes"
