"""Checks a run's newest checkpoint: conservation of all records, and consistent offsets."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from prectr.state.errors import CheckpointError, Remedy, StateError
from prectr.state.read_only_view import read_live_store
from prectr.stream.aggregate.source_frames import META_KEY as AGGREGATE_META
from prectr.stream.aggregate.source_frames import AggregateMeta
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.join.state import META_KEY as JOIN_META
from prectr.stream.join.state import JoinMeta
from prectr.stream.replay.run_checkpoint import ReplayCheckpoint, list_checkpoints, read_checkpoint

_MAX_ATTEMPTS: Final = 5
_T = TypeVar("_T")


class Check(msgspec.Struct, frozen=True):
    """One check: its name, whether it holds, and the numbers compared."""

    name: str
    holds: bool
    detail: str


def read_newest(run_dir: Path, read: Callable[[Path, ReplayCheckpoint], _T]) -> tuple[ReplayCheckpoint, _T]:
    """Return the manifest of a run's newest complete checkpoint, and what `read` returns for its folder and manifest.

    The run may be active: it deletes all but its newest two checkpoints, possibly the one being read. Then the newest
    one is read again.

    Raises:
        CheckpointError: there is none.
    """
    for _ in range(_MAX_ATTEMPTS):
        found = list_checkpoints(run_dir / "checkpoints")
        if not found:
            break
        try:
            checkpoint = read_checkpoint(found[0])
            return checkpoint, read(found[0], checkpoint)
        except (CheckpointError, StateError, FileNotFoundError):
            if found[0] in list_checkpoints(run_dir / "checkpoints"):
                raise
    raise CheckpointError(f"{run_dir}: contains no checkpoint of a replay", Remedy.OTHER_RUN_DIR)


def verify(run_dir: Path) -> list[Check]:
    """Check conservation and offsets of the newest checkpoint of `run_dir`."""
    checkpoint, (joins, aggregates) = read_newest(run_dir, lambda folder, _: read_metas(folder))
    outcomes = sum((meta.outcomes for meta in joins.values()), Outcomes())
    return [
        *(_conservation(name, meta.outcomes) for name, meta in joins.items()),
        _check_equal("records", "of all tasks", outcomes.records, "lines read", checkpoint.lines_read),
        _check_equal(
            "lines",
            "of the files",
            sum(file.lines_read for file in checkpoint.files),
            "lines read",
            checkpoint.lines_read,
        ),
        *_pages(outcomes, aggregates, checkpoint),
        *_offsets(joins, aggregates, checkpoint),
        _dead_letters(outcomes, checkpoint),
        _dead_letter_file(run_dir, checkpoint),
    ]


def read_metas(checkpoint: Path) -> tuple[dict[str, JoinMeta], dict[str, AggregateMeta]]:
    """Read the meta entry of every task in a checkpoint, by the name of the task."""
    joins, aggregates = {}, {}
    for path in sorted((checkpoint / "state").iterdir()):
        if path.name.startswith("join-"):
            (value,) = read_live_store(path, [JOIN_META])
            joins[path.name] = JoinMeta() if value is None else msgspec.msgpack.decode(value, type=JoinMeta)
        else:
            (value,) = read_live_store(path, [AGGREGATE_META])
            aggregates[path.name] = (
                AggregateMeta() if value is None else msgspec.msgpack.decode(value, type=AggregateMeta)
            )
    return joins, aggregates


def _conservation(name: str, outcomes: Outcomes) -> Check:
    imbalances = outcomes.imbalances()
    return Check(
        f"{name}: conservation", not imbalances, "; ".join(imbalances) or f"{outcomes.records:,} records accounted for"
    )


def _check_equal(name: str, found_label: str, found: int, expected_label: str, expected: int) -> Check:
    return Check(name, found == expected, f"{found:,} {found_label}, {expected:,} {expected_label}")


def _pages(outcomes: Outcomes, aggregates: dict[str, AggregateMeta], checkpoint: ReplayCheckpoint) -> list[Check]:
    released = sum(meta.emitted for meta in aggregates.values())
    buffered = outcomes.pages.emitted - released
    return [
        Check(
            "pages emitted",
            buffered >= 0,
            f"{outcomes.pages.emitted:,} by join, of which {buffered:,} buffered in merges",
        ),
        Check(
            "examples",
            released >= checkpoint.digest.pages,
            f"{released:,} by aggregate, {checkpoint.digest.pages:,} handed to the trainer",
        ),
        Check(
            "all released",
            not checkpoint.finished
            or (buffered == 0 and released == checkpoint.digest.pages and outcomes.pages.open == 0),
            "the run is finished" if checkpoint.finished else "the run can be continued",
        ),
    ]


def _offsets(
    joins: dict[str, JoinMeta], aggregates: dict[str, AggregateMeta], checkpoint: ReplayCheckpoint
) -> list[Check]:
    checks = [
        _check_equal(f"{name}: offset", "is its next record", meta.next_offset, "lines read", checkpoint.lines_read)
        for name, meta in joins.items()
    ]
    next_sequences = {sequence for meta in aggregates.values() for sequence in meta.next_sequences}
    checks.append(Check("frames", len(next_sequences) <= 1, f"next frame of every source: {sorted(next_sequences)}"))
    return checks


def _dead_letters(outcomes: Outcomes, checkpoint: ReplayCheckpoint) -> Check:
    counted = outcomes.pages.dead_letter + outcomes.clicks.dead_letter + outcomes.unreadable
    return _check_equal("dead letters", "by outcome", counted, "by reason", sum(checkpoint.dead_letters.values()))


def _dead_letter_file(run_dir: Path, checkpoint: ReplayCheckpoint) -> Check:
    path = run_dir / "dead-letters.jsonl"
    size = path.stat().st_size if path.exists() else 0
    return Check(
        "dead-letters.jsonl",
        size >= checkpoint.dead_letter_bytes,
        f"{size:,} bytes, {checkpoint.dead_letter_bytes:,} at the checkpoint",
    )
