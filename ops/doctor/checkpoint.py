"""The trainer's newest checkpoint: whole, how old, and whether what comes next is still in the log."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.groups import Commits
from prectr.ops.doctor.lock_holder import holder
from prectr.state.errors import CheckpointError
from prectr.stream.kafka.io.example_reader import ReaderState
from prectr.stream.kafka.io.sink_runner import LiveCut
from prectr.stream.replay.run_checkpoint import cuts, read_manifest

_OLD_SECONDS: Final = 600.0
_NAME: Final = "checkpoint"
_TRIES: Final = 3
_READER: Final = "reader.msgpack"


def check_checkpoint(run_dir: Path | None, commits: Commits | None) -> Iterator[Finding]:
    """Read the newest checkpoint as the trainer would. commits: None where the broker is not there."""
    if run_dir is None:
        return
    running = holder(run_dir / ".lock")
    if running is None:
        advice = f"start it: prectr train --bootstrap … --run-dir {run_dir}, or prectr run"
        yield Finding("trainer", "warning", f"none is running in {run_dir}", advice)
    else:
        yield Finding("trainer", "ok", f"running in {run_dir}, process {running}")
    yield _newest(run_dir, commits, running is not None)


def _newest(run_dir: Path, commits: Commits | None, running: bool) -> Finding:
    found = _whole(run_dir)
    if isinstance(found, Finding):
        return found
    seen = f"{found.folder}: whole, {found.age:,.0f} s old, {found.cut.tally.pages:,} pages"
    if commits is None:
        return Finding(_NAME, "ok", seen)
    if len(found.offsets) != len(commits.examples):
        seen += f"; of {len(found.offsets)} partitions, not {len(commits.examples)}"
        return Finding(_NAME, "error", seen, "name the --run-dir of this system, or its --topic-prefix")
    behind = 0
    for number, (at, (first, end)) in enumerate(zip(found.offsets, commits.examples, strict=True)):
        # A trainer at work has read on since the ends of the log were asked for.
        if at < first or (at > end and not running):
            seen = f"{found.folder}: offset {at:,} of partition {number} is next, the log holds {first:,} to {end:,}"
            return Finding(_NAME, "error", seen, "begin again with another --run-dir, and keep the log longer")
        behind += max(0, end - at)
    if running and behind and found.age > _OLD_SECONDS:
        advice = f"look at what the trainer says; its log under prectr run is {run_dir / 'logs' / 'train.log'}"
        return Finding(_NAME, "warning", f"{seen}, {behind:,} records of training-examples behind", advice)
    return Finding(_NAME, "ok", seen)


class _Whole(NamedTuple):
    """A checkpoint that can be taken up. age: in seconds. offsets: of the next unread record, by partition."""

    folder: Path
    age: float
    cut: LiveCut
    offsets: list[int]


def _whole(run_dir: Path) -> _Whole | Finding:
    """The newest checkpoint, or why there is none to be judged."""
    for _ in range(_TRIES):
        found = cuts(run_dir / "checkpoints")
        if not found:
            break
        try:
            cut, reader = read_manifest(found[0], LiveCut), _read(found[0])
            return _Whole(found[0], time.time() - found[0].stat().st_mtime, cut, reader.offsets)
        except (CheckpointError, OSError, msgspec.DecodeError) as error:
            if found[0] in cuts(run_dir / "checkpoints"):
                advice = f"stop the trainer, delete {found[0]} and start it again: it goes on from the one before"
                return Finding(_NAME, "error", f"{found[0]} is not whole: {error}", advice)
            # The trainer has written newer ones and removed this one meanwhile.
    return Finding(_NAME, "ok", f"{run_dir} holds none yet")


def _read(cut: Path) -> ReaderState:
    """Read everything in the checkpoint; returns the reader's state.

    Raises:
        CheckpointError, OSError, msgspec.DecodeError: it is damaged.
    """
    from prectr.model.training import checkpoint  # noqa: PLC0415 (torch takes seconds to import)

    for sink in sorted((cut / "sinks").iterdir()):
        if (sink / checkpoint.HEADER).exists():
            checkpoint.read(sink, checkpoint.read_config(sink))
    return msgspec.msgpack.decode((cut / _READER).read_bytes(), type=ReaderState)
