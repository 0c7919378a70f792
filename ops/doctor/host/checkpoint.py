"""The trainer's newest checkpoint: readable, its age, and whether the log still holds its next records."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from prectr.model.training.checkpoint_files import HEADER, read_files, read_header
from prectr.ops.doctor.broker.groups import GroupOffsets
from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.host.lock_holder import lock_holder
from prectr.ops.training.failure_marker import read_failure
from prectr.state.errors import CheckpointError
from prectr.stream.kafka.io.example_reader import ReaderState
from prectr.stream.kafka.io.sink_runner import LiveCheckpoint
from prectr.stream.replay.run_checkpoint import list_checkpoints, read_manifest

_MAX_AGE_SECONDS: Final = 600.0
_FINDING: Final = "checkpoint"
_TRIES: Final = 3
_READER_STATE_FILE: Final = "reader.msgpack"


def check_checkpoint(run_dir: Path | None, commits: GroupOffsets | None) -> Iterator[Finding]:
    """Read the newest checkpoint as the trainer would. commits: None if the broker is unavailable."""
    if run_dir is None:
        return
    running = lock_holder(run_dir / ".lock")
    failure = read_failure(run_dir)
    if failure is not None:
        advice = "see PrectrLossNotFinite in docs/runbook.md: a restart stops at the same batch, unless it was learned"
        yield Finding("trainer", "error", f"training has stopped in {run_dir}: {failure}", advice)
    elif running is None and commits is not None and (unread := commits.unread_examples(trainer_positions(run_dir))):
        advice = f"start it: prectr train --bootstrap … --run-dir {run_dir}, or prectr run"
        observed = f"no trainer is running in {run_dir}, and {unread:,} records of training-examples wait for it"
        yield Finding("trainer", "error", observed, advice)
    elif running is None:
        advice = f"start it: prectr train --bootstrap … --run-dir {run_dir}, or prectr run"
        yield Finding("trainer", "warning", f"no trainer is running in {run_dir}", advice)
    else:
        yield Finding("trainer", "ok", f"running in {run_dir}, process {running}")
    yield _check_newest(run_dir, commits, running is not None)


def _check_newest(run_dir: Path, commits: GroupOffsets | None, running: bool) -> Finding:
    found = _newest_readable(run_dir)
    if isinstance(found, Finding):
        return found
    observed = f"{found.folder}: complete, {found.age_seconds:,.0f} s old, {found.manifest.digest.pages:,} pages"
    if commits is None:
        return Finding(_FINDING, "ok", observed)
    if len(found.offsets) != len(commits.examples):
        observed += f"; it has {len(found.offsets)} partitions, the topic {len(commits.examples)}"
        return Finding(_FINDING, "error", observed, "use the --run-dir of this system, or its --topic-prefix")
    lag = 0
    for number, (offset, (first, end)) in enumerate(zip(found.offsets, commits.examples, strict=True)):
        # A running trainer has read on since the end offsets were read.
        if offset < first or (offset > end and not running):
            observed = (
                f"{found.folder}: next offset of partition {number} is {offset:,}, the log holds {first:,} to {end:,}"
            )
            return Finding(_FINDING, "error", observed, "start over with another --run-dir, and increase the retention")
        lag += max(0, end - offset)
    if running and lag and found.age_seconds > _MAX_AGE_SECONDS:
        advice = f"see the log of the trainer; under prectr run it is {run_dir / 'logs' / 'train.log'}"
        return Finding(_FINDING, "warning", f"{observed}, lag {lag:,} records of training-examples", advice)
    return Finding(_FINDING, "ok", observed)


def trainer_positions(run_dir: Path | None) -> list[int]:
    """Return the offsets of the next example by partition, as of the newest checkpoint; none without one."""
    found = None if run_dir is None else _newest_readable(run_dir)
    return found.offsets if isinstance(found, _ReadableCheckpoint) else []


class _ReadableCheckpoint(NamedTuple):
    """A checkpoint that can be restored. offsets: of the next unread record, by partition."""

    folder: Path
    age_seconds: float
    manifest: LiveCheckpoint
    offsets: list[int]


def _newest_readable(run_dir: Path) -> _ReadableCheckpoint | Finding:
    """The newest checkpoint, or a finding if there is none to check."""
    for _ in range(_TRIES):
        found = list_checkpoints(run_dir / "checkpoints")
        if not found:
            break
        try:
            manifest, reader = read_manifest(found[0], LiveCheckpoint), _read_checkpoint(found[0])
            return _ReadableCheckpoint(found[0], time.time() - found[0].stat().st_mtime, manifest, reader.offsets)
        except (CheckpointError, OSError, msgspec.DecodeError, RecursionError) as error:
            if found[0] in list_checkpoints(run_dir / "checkpoints"):
                advice = f"stop the trainer, delete {found[0]} and restart it: it resumes from the previous checkpoint"
                return Finding(_FINDING, "error", f"{found[0]} is not readable: {error}", advice)
            # The trainer has written newer ones and pruned this one meanwhile.
    return Finding(_FINDING, "ok", f"{run_dir} has none yet")


def _read_checkpoint(folder: Path) -> ReaderState:
    """Read all of the checkpoint; returns the state of the reader.

    Raises:
        CheckpointError, OSError, msgspec.DecodeError, RecursionError: it is corrupt.
    """
    for sink in sorted((folder / "sinks").iterdir()):
        if (sink / HEADER).exists():
            read_files(sink, read_header(sink))
    return msgspec.msgpack.decode((folder / _READER_STATE_FILE).read_bytes(), type=ReaderState)
