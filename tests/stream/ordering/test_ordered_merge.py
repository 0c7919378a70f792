"""The one order: the merge against a sorted list, with and without a spill, with crashes and a reopen."""

import copy
from itertools import count
from random import Random
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.stream.join.event_clock import BEFORE_TIME, END_OF_TIME
from prectr.stream.ordering.ordered_merge import Merge, Spill
from prectr.stream.ordering.watermark import LineProgress, Silence
from tests.kit.stages.store import DictStore

SILENT = Silence([0, 0], END_OF_TIME)
"""Of one of two sources, for whatever the other reads."""


class Rec(msgspec.Struct, array_like=True, frozen=True):
    closes_at: int
    request_id: str
    user_id: str
    source: int


_decode = msgspec.msgpack.Decoder(Rec).decode


def place(record: Rec) -> tuple[int, bytes, bytes]:
    return record.closes_at, record.request_id.encode(), record.user_id.encode()


class Frame(NamedTuple):
    source: int
    records: list[Rec]
    watermark: int
    idle: bool = False


def drawn_frames(seed: int, sources: int, records: int) -> list[Frame]:
    """Frames of every source, each source's in its order, the sources mixed; some ahead of others by far."""
    rng = Random(seed)
    ids = ["", "a", "a\0", "b", "é", "😀", "\uffff"]
    per_source: list[list[Frame]] = []
    for source in range(sources):
        watermark, frames = rng.randrange(10), []
        for _ in range(rng.randint(0, max(1, records // 4))):
            upto = watermark + rng.choice([0, 1, 3, 20])
            count = rng.randint(0, 6) if upto > watermark else 0
            # one source holds all pages of a user, so no two sources have the same place
            made = {
                (rng.randint(watermark + 1, upto), rng.choice(ids), f"{source}{rng.choice(ids)}") for _ in range(count)
            }
            ordered = sorted((Rec(*key, source) for key in made), key=place)
            frames.append(Frame(source, ordered, upto))
            watermark = upto
        per_source.append(frames)
    mixed = []
    while any(per_source):
        source = rng.choice([number for number, frames in enumerate(per_source) if frames])
        for _ in range(rng.randint(1, 4)):
            if per_source[source]:
                mixed.append(per_source[source].pop(0))
    return mixed


def add(merge: Merge[Rec], frame: Frame) -> None:
    silence = Silence([0] * len(merge.progress.watermarks), END_OF_TIME) if frame.idle else None
    merge.add(frame.source, frame.records, frame.watermark, silence=silence)


def lowest(watermarks: dict[int, int], sources: int) -> int:
    return min(watermarks.get(source, BEFORE_TIME) for source in range(sources))


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 30), sources=st.integers(1, 5))
def test_in_memory_it_releases_the_sorted_union_as_soon_as_it_is_due(seed: int, sources: int) -> None:
    merge: Merge[Rec] = Merge(sources)
    seen, watermarks, released = [], {}, []
    for frame in drawn_frames(seed, sources, 30):
        add(merge, frame)
        seen += frame.records
        watermarks[frame.source] = frame.watermark
        records, passed = merge.release()
        released += records
        line = lowest(watermarks, sources)
        assert passed == merge.line == line
        assert released == sorted((record for record in seen if record.closes_at <= line), key=place)
    for source in range(sources):
        merge.end(source)
    released += merge.release()[0]
    assert released == sorted(seen, key=place)
    assert merge.held == 0
    assert merge.line == END_OF_TIME


def test_a_source_that_was_not_heard_from_holds_the_line() -> None:
    merge: Merge[Rec] = Merge(3)
    merge.add(0, [Rec(5, "r", "u", 0)], 10)
    merge.add(1, [Rec(4, "r", "v", 1)], 10)
    assert merge.release() == ([], BEFORE_TIME)
    merge.add(2, [], 4)
    assert merge.release() == ([Rec(4, "r", "v", 1)], 4)
    merge.end(2)
    assert merge.release() == ([Rec(5, "r", "u", 0)], 10)


def test_a_watermark_never_goes_back() -> None:
    merge: Merge[Rec] = Merge(1)
    merge.add(0, [], 10)
    merge.add(0, [], 3)
    assert merge.line == 10


class SpillingTask:
    """A merge with its store, as a stage uses it: frames numbered, changes written after each round.

    After a crash it goes on from the store and takes the frames behind the last one that was written again.
    """

    def __init__(self, sources: int, limit: int) -> None:
        self.sources = sources
        self.limit = limit
        self.store = DictStore()
        self.progress: LineProgress | None = None
        self.next_frame = 0
        self.committed: list[Rec] = []
        self.written = 0
        self.reopen()

    def reopen(self) -> None:
        self.merge = Merge(self.sources, Spill(self.store, _decode, self.limit), copy.deepcopy(self.progress))
        self.released = self.written
        self.passed = BEFORE_TIME

    def round(self, *, lose: bool) -> None:
        records, self.passed = self.merge.release()
        self._commit(records)
        if lose:
            self.reopen()
            return
        self.write()

    def _commit(self, records: list[Rec]) -> None:
        again = min(len(self.committed) - self.released, len(records))
        assert records[:again] == self.committed[self.released : self.released + again]
        self.committed += records[again:]
        self.released += len(records)

    def write(self) -> None:
        self.store.write(self.merge.take_changes())
        self.progress = copy.deepcopy(self.merge.progress)
        self.written = self.released
        assert self.merge.held <= self.limit


@settings(max_examples=150)
@given(seed=st.integers(0, 1 << 30), sources=st.integers(1, 4), limit=st.integers(2, 9), crashes=st.booleans())
def test_with_a_spill_it_releases_the_same_never_early_never_twice(
    seed: int, sources: int, limit: int, crashes: bool
) -> None:
    """Whatever the memory limit, also with crashes before and after a write. Nothing is left in the store."""
    rng = Random(seed)
    frames = drawn_frames(seed, sources, 40)
    task, taken, written_frames = SpillingTask(sources, limit), 0, 0
    while taken < len(frames):
        for _ in range(rng.randint(1, 5)):
            if taken < len(frames):
                add(task.merge, frames[taken])
                taken += 1
        lose = crashes and rng.random() < 0.2
        task.round(lose=lose)
        if lose:
            taken = written_frames
            continue
        written_frames = taken
        while task.passed < task.merge.line:
            task.round(lose=False)
        expected = _due(frames[:taken], sources)
        assert task.committed[: len(expected)] == expected  # what a lost round put out early is checked when it returns
        assert task.released == len(expected)
        if crashes and rng.random() < 0.2:
            task.reopen()
            while task.passed < task.merge.line:
                task.round(lose=False)
    for source in range(sources):
        task.merge.end(source)
    while task.passed < task.merge.line:
        task.round(lose=False)
    assert task.committed == sorted((record for frame in frames for record in frame.records), key=place)
    assert task.store.entries == {}
    assert task.merge.held == 0


def _due(frames: list[Frame], sources: int) -> list[Rec]:
    watermarks = {frame.source: frame.watermark for frame in frames}
    line = lowest(watermarks, sources)
    return sorted((record for frame in frames for record in frame.records if record.closes_at <= line), key=place)


def test_what_it_tells_to_have_passed_is_behind_what_still_lies_in_the_store() -> None:
    """A record that the store alone holds keeps the time that it tells below its own."""
    task = SpillingTask(1, 4)
    records = [Rec(closes_at, "r", f"u{number}", 0) for number, closes_at in enumerate([1, 2, 3, 3, 3, 3, 3, 4, 5, 6])]
    task.merge.add(0, records, 0)
    task.round(lose=False)
    assert task.merge.held == 2
    task.merge.add(0, [], 5)
    told = []
    while task.passed < task.merge.line:
        task.round(lose=False)
        missing = [record.closes_at for record in records[:9] if record not in task.committed]
        assert all(task.passed < closes_at for closes_at in missing)
        told.append(task.passed)
    assert told == sorted(told)
    assert len(told) > 2
    assert task.committed == records[:9]
    assert len(task.store.entries) == 1


def test_memory_stays_below_the_limit_while_a_source_is_silent() -> None:
    task = SpillingTask(2, 10)
    total = 0
    for number in range(100):
        task.merge.add(0, [Rec(number + 1, f"r{more}", "u", 0) for more in range(7)], number + 1)
        total += 7
        task.round(lose=False)
        assert task.merge.held <= 10
    assert task.committed == []
    assert len(task.store.entries) == total
    task.merge.end(1)
    while task.passed < task.merge.line:
        task.round(lose=False)
    assert [record.closes_at for record in task.committed] == [number + 1 for number in range(100) for _ in range(7)]
    assert task.store.entries == {}


def test_without_a_spill_there_are_no_changes_to_write() -> None:
    merge: Merge[Rec] = Merge(1)
    merge.add(0, [Rec(1, "r", "u", 0)], 1)
    merge.release()
    assert merge.take_changes() == {}


@pytest.mark.parametrize("limit", [2, 100])
def test_a_reopened_merge_takes_up_what_it_held(limit: int) -> None:
    task = SpillingTask(2, limit)
    records = [Rec(number, "r", "u", 0) for number in range(1, 8)]
    task.merge.add(0, records, 9)
    task.round(lose=False)
    task.reopen()
    assert task.merge.progress.watermarks == [9, BEFORE_TIME]
    task.merge.add(1, [], 9)
    while task.passed < task.merge.line:
        task.round(lose=False)
    assert task.committed == records
    assert task.store.entries == {}


def test_an_idle_source_holds_nobody_up_and_what_it_says_late_stands_behind_the_line() -> None:
    merge: Merge[Rec] = Merge(2)
    merge.add(0, [Rec(5, "a", "u", 0), Rec(20, "b", "u", 0)], 30)
    assert merge.release() == ([], BEFORE_TIME)
    merge.add(1, [], 3, silence=SILENT)
    assert merge.release() == ([Rec(5, "a", "u", 0), Rec(20, "b", "u", 0)], 30)
    # It speaks again, with two records behind the line 30 and one before it.
    merge.add(1, [Rec(7, "z", "u", 1), Rec(9, "c", "u", 1), Rec(40, "d", "u", 1)], 40)
    merge.add(0, [Rec(31, "b2", "u", 0)], 35)
    assert merge.release() == ([Rec(31, "b2", "u", 0), Rec(31, "c", "u", 1), Rec(31, "z", "u", 1)], 35)
    assert merge.progress.out_of_order == 2


def test_where_all_sources_are_idle_the_line_is_the_largest_watermark_and_never_goes_back() -> None:
    merge: Merge[Rec] = Merge(2)
    merge.add(0, [Rec(5, "a", "u", 0)], 10, silence=SILENT)
    merge.add(1, [Rec(8, "b", "u", 1)], 8, silence=SILENT)
    assert merge.release()[1] == 10
    merge.add(1, [], 9)
    assert merge.line == 10


def test_late_records_survive_a_reopen_and_leave_nothing_in_the_store() -> None:
    task = SpillingTask(2, 100)
    task.merge.add(0, [Rec(number, f"r{number}", "u", 0) for number in range(1, 6)], 100)
    task.merge.add(1, [], 50, silence=SILENT)
    task.round(lose=False)
    assert len(task.committed) == 5
    task.merge.add(1, [Rec(70, "later", "u", 1), Rec(80, "late", "u", 1)], 90)
    task.merge.add(1, [Rec(95, "last", "u", 1)], 99)
    task.round(lose=False)
    task.reopen()
    assert task.merge.held == 3
    task.merge.add(0, [], 200)
    task.merge.add(1, [], 200)
    task.round(lose=False)
    assert task.committed[5:] == [Rec(101, name, "u", 1) for name in ("last", "late", "later")]
    assert task.store.keys(b"h") == []


def by_the_rules(frames: list[Frame], sources: int) -> tuple[list[Rec], list[int], int]:
    """Every record with the place that it is given, the line after each frame, and how many came behind it."""
    watermarks, idle = [BEFORE_TIME] * sources, [False] * sources
    line, late, placed, lines = BEFORE_TIME, 0, [], []
    for frame in frames:
        for record in frame.records:
            behind = record.closes_at <= line
            placed.append(msgspec.structs.replace(record, closes_at=line + 1) if behind else record)
            late += behind
        watermarks[frame.source] = max(watermarks[frame.source], frame.watermark)
        idle[frame.source] = frame.idle
        heard = [watermark for watermark, quiet in zip(watermarks, idle, strict=True) if not quiet]
        line = max(line, min(heard, default=max(watermarks)))
        lines.append(line)
    return sorted(placed, key=place), lines, late


def named_once(frames: list[Frame]) -> list[Frame]:
    """No request id comes twice: two pages of one id that come behind the line would have one place."""
    numbers = count()
    return [
        frame._replace(
            records=sorted(
                (
                    msgspec.structs.replace(record, request_id=f"{record.request_id}{next(numbers)}")
                    for record in frame.records
                ),
                key=place,
            )
        )
        for frame in frames
    ]


@settings(max_examples=150)
@given(
    seed=st.integers(0, 1 << 30),
    sources=st.integers(2, 4),
    limit=st.integers(2, 9) | st.just(1000),
    crashes=st.booleans(),
)
def test_with_idle_sources_the_frames_alone_decide_the_order(
    seed: int, sources: int, limit: int, crashes: bool
) -> None:
    """Whatever the memory limit, the rounds and the crashes."""
    rng = Random(seed)
    frames = [frame._replace(idle=rng.random() < 0.3) for frame in named_once(drawn_frames(seed, sources, 40))]
    placed, lines, late = by_the_rules(frames, sources)
    task, taken, written_frames = SpillingTask(sources, limit), 0, 0
    while taken < len(frames):
        upto = min(len(frames), taken + rng.randint(1, 5))
        for frame in frames[taken:upto]:
            add(task.merge, frame)
        taken = upto
        if crashes and rng.random() < 0.2:
            task.round(lose=True)
            taken = written_frames
            continue
        task.round(lose=False)
        written_frames = taken
        if crashes and rng.random() < 0.2:
            task.reopen()
        while task.passed < task.merge.line:
            task.round(lose=False)
        assert task.merge.line == lines[taken - 1]
        assert task.released == sum(
            record.closes_at <= lines[taken - 1] for record in placed_by(frames[:taken], sources)
        )
    for source in range(sources):
        task.merge.end(source)
    while task.passed < task.merge.line:
        task.round(lose=False)
    assert task.committed == placed
    assert task.merge.progress.out_of_order == late
    assert task.store.entries == {}


def placed_by(frames: list[Frame], sources: int) -> list[Rec]:
    return by_the_rules(frames, sources)[0]


def test_the_same_ids_twice_behind_one_line_take_places_of_their_own() -> None:
    task = SpillingTask(2, 100)
    task.merge.add(0, [], 100)
    task.merge.add(1, [], 1, silence=SILENT)
    task.round(lose=False)
    task.merge.add(1, [Rec(70, "r", "u", 1), Rec(80, "r", "u", 1)], 90)
    task.merge.add(1, [Rec(95, "r", "u", 1)], 99)
    task.round(lose=False)
    task.reopen()
    task.merge.add(0, [], 200)
    task.merge.add(1, [], 200)
    task.round(lose=False)
    assert task.committed == [Rec(closes_at, "r", "u", 1) for closes_at in (101, 102, 103)]
