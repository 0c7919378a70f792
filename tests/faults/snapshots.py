"""What the scenarios need to know of snapshots: the flags, and how they lie in their folder."""

import inspect
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Final

from prectr.ops.commands.pipeline.stream import stream
from prectr.state.snapshots.manifest import decode_manifest

_STREAM_PARAMETERS: Final = inspect.signature(stream).parameters
AVAILABLE: Final = "snapshots" in _STREAM_PARAMETERS
"""Whether the program has them."""
FLAGS: Final = ("--snapshot-interval", "2") if "snapshot_interval" in _STREAM_PARAMETERS else ()
"""Often enough for a scenario of a minute."""


def all_tasks_have_two(folder: Path, tasks: int) -> bool:
    """Whether every task has a snapshot and one before it to fall back to: any of them may be the one that moves."""
    return sum(len(list(task.glob("manifests/*.json"))) > 1 for task in folder.glob("*")) >= tasks


def truncate_newest(folder: Path, rng: random.Random) -> str:
    """Cut short a file of every task's newest snapshot: the manifest, or one that it names; returns how many."""
    truncated = 0
    for task in sorted(folder.glob("*")):
        manifests = sorted(task.glob("manifests/*.json"))
        if not manifests:
            continue
        victims = [manifests[-1]]
        manifest = decode_manifest(manifests[-1].name, manifests[-1].read_bytes())
        if manifest is not None and rng.random() < 0.5:
            victims = [task / "files" / path for path, size in manifest.sizes().items() if size]
        # A living owner may have pruned it meanwhile.
        with suppress(FileNotFoundError), rng.choice(victims).open("r+b") as file:
            # A fault before may have left nothing of it: then it stays as it is.
            file.truncate(rng.randrange(file.seek(0, os.SEEK_END) or 1))
            truncated += 1
    return f"a file of the newest snapshot of each of {truncated} tasks cut short"
