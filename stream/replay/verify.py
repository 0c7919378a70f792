"""Checks a run's newest cut: every record accounted for, every offset where it should be."""

from pathlib import Path

import msgspec

from prectr.state.errors import CheckpointError
from prectr.state.store import Store, StoreOptions
from prectr.stream.aggregate.operator import META_KEY as QUERIES_META
from prectr.stream.aggregate.operator import QueriesMeta
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.join.state import META_KEY as SESSIONS_META
from prectr.stream.join.state import SessionsMeta
from prectr.stream.replay.run_checkpoint import Cut, cuts, read_cut

_READ_ONLY = StoreOptions(read_only=True)


class Check(msgspec.Struct, frozen=True):
    """One thing that was checked: what it is, whether it holds, and the figures."""

    name: str
    holds: bool
    detail: str


def newest_cut(run_dir: Path) -> tuple[Path, Cut]:
    """The newest whole cut of a run, and its manifest.

    Raises:
        CheckpointError: there is none.
    """
    found = cuts(run_dir / "checkpoints")
    if not found:
        raise CheckpointError(f"{run_dir}: there is no checkpoint in it: name the --run-dir of a replay")
    return found[0], read_cut(found[0])


def verify(run_dir: Path) -> list[Check]:
    """Check conservation and offsets of the newest cut of `run_dir`."""
    folder, cut = newest_cut(run_dir)
    sessions, queries = read_metas(folder)
    outcomes = sum((meta.outcomes for meta in sessions.values()), Outcomes())
    return [
        *(_conservation(name, meta.outcomes) for name, meta in sessions.items()),
        _check("records", "of all tasks", outcomes.records, "lines read", cut.place),
        _check("lines", "of the files", sum(file.lines for file in cut.files), "lines read", cut.place),
        *_pages(outcomes, queries, cut),
        *_positions(sessions, queries, cut),
        _dead_letters(outcomes, cut),
        _dead_letter_file(run_dir, cut),
    ]


def read_metas(cut: Path) -> tuple[dict[str, SessionsMeta], dict[str, QueriesMeta]]:
    """What every task of a cut says of itself, by the task's name."""
    sessions, queries = {}, {}
    for path in sorted((cut / "state").iterdir()):
        store = Store(path, _READ_ONLY)
        if path.name.startswith("sessions-"):
            (value,) = store.get_many([SESSIONS_META])
            sessions[path.name] = SessionsMeta() if value is None else msgspec.msgpack.decode(value, type=SessionsMeta)
        else:
            (value,) = store.get_many([QUERIES_META])
            queries[path.name] = QueriesMeta() if value is None else msgspec.msgpack.decode(value, type=QueriesMeta)
        store.close()
    return sessions, queries


def _conservation(name: str, outcomes: Outcomes) -> Check:
    wrong = outcomes.imbalance()
    return Check(f"{name}: conservation", not wrong, "; ".join(wrong) or f"{outcomes.records:,} records accounted for")


def _check(name: str, which: str, found: int, of: str, expected: int) -> Check:
    return Check(name, found == expected, f"{found:,} {which}, {expected:,} {of}")


def _pages(outcomes: Outcomes, queries: dict[str, QueriesMeta], cut: Cut) -> list[Check]:
    released = sum(meta.emitted for meta in queries.values())
    held = outcomes.impressions.emitted - released
    return [
        Check(
            "pages emitted",
            held >= 0,
            f"{outcomes.impressions.emitted:,} by sessions, of which {held:,} held in merges",
        ),
        Check(
            "examples",
            released >= cut.tally.pages,
            f"{released:,} by queries, {cut.tally.pages:,} handed to the trainer",
        ),
        Check(
            "all released",
            not cut.finished or (held == 0 and released == cut.tally.pages and outcomes.impressions.open == 0),
            "the run is finished" if cut.finished else "the run can go on",
        ),
    ]


def _positions(sessions: dict[str, SessionsMeta], queries: dict[str, QueriesMeta], cut: Cut) -> list[Check]:
    checks = [
        _check(f"{name}: position", "is its next record", meta.position, "lines read", cut.place)
        for name, meta in sessions.items()
    ]
    frames = {position for meta in queries.values() for position in meta.positions}
    checks.append(Check("frames", len(frames) <= 1, f"next frame of every source: {sorted(frames)}"))
    return checks


def _dead_letters(outcomes: Outcomes, cut: Cut) -> Check:
    counted = outcomes.impressions.dead_letter + outcomes.clicks.dead_letter + outcomes.unreadable
    return _check("dead letters", "by outcome", counted, "by reason", sum(cut.dead_letters.values()))


def _dead_letter_file(run_dir: Path, cut: Cut) -> Check:
    path = run_dir / "dead-letters.jsonl"
    size = path.stat().st_size if path.exists() else 0
    return Check(
        "dead-letters.jsonl", size >= cut.dead_letter_bytes, f"{size:,} bytes, {cut.dead_letter_bytes:,} at the cut"
    )
