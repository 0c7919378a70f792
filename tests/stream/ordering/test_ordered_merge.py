"""The total order: the merge against a sorted list, with and without a spill, with crashes and restarts."""

import copy
from itertools import count
from random import Random
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.ordering.ordered_merge import OrderedMerge, Spill
from prectr.stream.ordering.watermark import MergedWatermark, SourceIdleness
from tests.kit.stages.store import DictStore

IDLE = SourceIdleness([0, 0], MAX_WATERMARK)
"""Of one of two sources, for anything that the other reads."""


class Rec(msgspec.Struct, array_like=True, frozen=True):
    closes_at: int
    request_id: str
    user_id: str
    source: int


_decode = msgspec.msgpack.Decoder(Rec).decode


def key_of(record: Rec) -> tuple[int, bytes, bytes]:
    return record.closes_at, record.request_id.encode(), record.user_id.encode()


class Frame(NamedTuple):
    source: int
    records: list[Rec]
    watermark: int
    idle: bool = False


def drawn_frames(seed: int, sources: int, records: int) -> list[Frame]:
    """Frames of every source in its order, the sources interleaved; some are far ahead of others."""
    rng = Random(seed)
    ids = ["", "a", "a\0", "b", "é", "😀", "\uffff"]
    per_source: list[list[Frame]] = []
    for source in range(sources):
        watermark, frames = rng.randrange(10), []
        for _ in range(rng.randint(0, max(1, records // 4))):
            upto = watermark + rng.choice([0, 1, 3, 20])
            count = rng.randint(0, 6) if upto > watermark else 0
            # one source has all pages of a user, so no two sources have the same key
            made = {
                (rng.randint(watermark + 1, upto), rng.choice(ids), f"{source}{rng.choice(ids)}") for _ in range(count)
            }
            ordered = sorted((Rec(*key, source) for key in made), key=key_of)
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


def add(merge: OrderedMerge[Rec], frame: Frame) -> None:
    idleness = (
        SourceIdleness([0] * len(merge.merged_watermark.source_watermarks), MAX_WATERMARK) if frame.idle else None
    )
    merge.add(frame.source, frame.records, frame.watermark, idleness=idleness)


def lowest(watermarks: dict[int, int], sources: int) -> int:
    return min(watermarks.get(source, MIN_WATERMARK) for source in range(sources))


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 30), sources=st.integers(1, 5))
def test_in_memory_it_releases_the_sorted_union_as_soon_as_it_is_due(seed: int, sources: int) -> None:
    merge: OrderedMerge[Rec] = OrderedMerge(sources)
    seen, watermarks, released = [], {}, []
    for frame in drawn_frames(seed, sources, 30):
        add(merge, frame)
        seen += frame.records
        watermarks[frame.source] = frame.watermark
        records, passed = merge.release()
        released += records
        merged = lowest(watermarks, sources)
        assert passed == merge.watermark == merged
        assert released == sorted((record for record in seen if record.closes_at <= merged), key=key_of)
    for source in range(sources):
        merge.end_source(source)
    released += merge.release()[0]
    assert released == sorted(seen, key=key_of)
    assert merge.buffered == 0
    assert merge.watermark == MAX_WATERMARK


def test_a_source_without_a_report_holds_the_watermark() -> None:
    merge: OrderedMerge[Rec] = OrderedMerge(3)
    merge.add(0, [Rec(5, "r", "u", 0)], 10)
    merge.add(1, [Rec(4, "r", "v", 1)], 10)
    assert merge.release() == ([], MIN_WATERMARK)
    merge.add(2, [], 4)
    assert merge.release() == ([Rec(4, "r", "v", 1)], 4)
    merge.end_source(2)
    assert merge.release() == ([Rec(5, "r", "u", 0)], 10)


def test_a_watermark_never_goes_back() -> None:
    merge: OrderedMerge[Rec] = OrderedMerge(1)
    merge.add(0, [], 10)
    merge.add(0, [], 3)
    assert merge.watermark == 10


class SpillingTask:
    """A merge with its store, as a stage uses it: changes are written after each round.

    After a crash it resumes from the store and processes the frames after the last one written again.
    """

    def __init__(self, sources: int, limit: int) -> None:
        self.sources = sources
        self.limit = limit
        self.store = DictStore()
        self.progress: MergedWatermark | None = None
        self.next_frame = 0
        self.committed: list[Rec] = []
        self.written = 0
        self.reopen()

    def reopen(self) -> None:
        self.merge = OrderedMerge(self.sources, Spill(self.store, _decode, self.limit), copy.deepcopy(self.progress))
        self.released = self.written
        self.passed = MIN_WATERMARK

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
        self.store.write(self.merge.drain_changes())
        self.progress = copy.deepcopy(self.merge.merged_watermark)
        self.written = self.released
        assert self.merge.buffered <= self.limit


@settings(max_examples=150)
@given(seed=st.integers(0, 1 << 30), sources=st.integers(1, 4), limit=st.integers(2, 9), crashes=st.booleans())
def test_with_a_spill_it_releases_the_same_never_early_never_twice(
    seed: int, sources: int, limit: int, crashes: bool
) -> None:
    """For any memory limit, with crashes before and after a write. Nothing is left in the store."""
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
        while task.passed < task.merge.watermark:
            task.round(lose=False)
        expected = _due(frames[:taken], sources)
        # What a lost round released is checked when it is released again.
        assert task.committed[: len(expected)] == expected
        assert task.released == len(expected)
        if crashes and rng.random() < 0.2:
            task.reopen()
            while task.passed < task.merge.watermark:
                task.round(lose=False)
    for source in range(sources):
        task.merge.end_source(source)
    while task.passed < task.merge.watermark:
        task.round(lose=False)
    assert task.committed == sorted((record for frame in frames for record in frame.records), key=key_of)
    assert task.store.entries == {}
    assert task.merge.buffered == 0


def _due(frames: list[Frame], sources: int) -> list[Rec]:
    watermarks = {frame.source: frame.watermark for frame in frames}
    merged = lowest(watermarks, sources)
    return sorted((record for frame in frames for record in frame.records if record.closes_at <= merged), key=key_of)


def test_the_released_bound_is_before_everything_still_stored() -> None:
    """A record that is only in the store keeps the reported time below its own."""
    task = SpillingTask(1, 4)
    records = [Rec(closes_at, "r", f"u{number}", 0) for number, closes_at in enumerate([1, 2, 3, 3, 3, 3, 3, 4, 5, 6])]
    task.merge.add(0, records, 0)
    task.round(lose=False)
    assert task.merge.buffered == 2
    task.merge.add(0, [], 5)
    released_up_to = []
    while task.passed < task.merge.watermark:
        task.round(lose=False)
        missing = [record.closes_at for record in records[:9] if record not in task.committed]
        assert all(task.passed < closes_at for closes_at in missing)
        released_up_to.append(task.passed)
    assert released_up_to == sorted(released_up_to)
    assert len(released_up_to) > 2
    assert task.committed == records[:9]
    assert len(task.store.entries) == 1


def test_memory_stays_below_the_limit_while_a_source_is_idle() -> None:
    task = SpillingTask(2, 10)
    total = 0
    for number in range(100):
        task.merge.add(0, [Rec(number + 1, f"r{more}", "u", 0) for more in range(7)], number + 1)
        total += 7
        task.round(lose=False)
        assert task.merge.buffered <= 10
    assert task.committed == []
    assert len(task.store.entries) == total
    task.merge.end_source(1)
    while task.passed < task.merge.watermark:
        task.round(lose=False)
    assert [record.closes_at for record in task.committed] == [number + 1 for number in range(100) for _ in range(7)]
    assert task.store.entries == {}


def test_without_a_spill_there_are_no_changes_to_write() -> None:
    merge: OrderedMerge[Rec] = OrderedMerge(1)
    merge.add(0, [Rec(1, "r", "u", 0)], 1)
    merge.release()
    assert merge.drain_changes() == {}


@pytest.mark.parametrize("limit", [2, 100])
def test_a_reopened_merge_restores_its_buffer(limit: int) -> None:
    task = SpillingTask(2, limit)
    records = [Rec(number, "r", "u", 0) for number in range(1, 8)]
    task.merge.add(0, records, 9)
    task.round(lose=False)
    task.reopen()
    assert task.merge.merged_watermark.source_watermarks == [9, MIN_WATERMARK]
    task.merge.add(1, [], 9)
    while task.passed < task.merge.watermark:
        task.round(lose=False)
    assert task.committed == records
    assert task.store.entries == {}


def test_an_idle_source_holds_no_other_and_its_late_records_follow_the_watermark() -> None:
    merge: OrderedMerge[Rec] = OrderedMerge(2)
    merge.add(0, [Rec(5, "a", "u", 0), Rec(20, "b", "u", 0)], 30)
    assert merge.release() == ([], MIN_WATERMARK)
    merge.add(1, [], 3, idleness=IDLE)
    assert merge.release() == ([Rec(5, "a", "u", 0), Rec(20, "b", "u", 0)], 30)
    # It reports again, with two late records behind the watermark 30 and one after it.
    merge.add(1, [Rec(7, "z", "u", 1), Rec(9, "c", "u", 1), Rec(40, "d", "u", 1)], 40)
    merge.add(0, [Rec(31, "b2", "u", 0)], 35)
    assert merge.release() == ([Rec(31, "b2", "u", 0), Rec(31, "c", "u", 1), Rec(31, "z", "u", 1)], 35)
    assert merge.merged_watermark.late_records == 2


def test_where_all_sources_are_idle_the_watermark_is_the_largest_and_monotonic() -> None:
    merge: OrderedMerge[Rec] = OrderedMerge(2)
    merge.add(0, [Rec(5, "a", "u", 0)], 10, idleness=IDLE)
    merge.add(1, [Rec(8, "b", "u", 1)], 8, idleness=IDLE)
    assert merge.release()[1] == 10
    merge.add(1, [], 9)
    assert merge.watermark == 10


def test_late_records_survive_a_reopen_and_leave_nothing_in_the_store() -> None:
    task = SpillingTask(2, 100)
    task.merge.add(0, [Rec(number, f"r{number}", "u", 0) for number in range(1, 6)], 100)
    task.merge.add(1, [], 50, idleness=IDLE)
    task.round(lose=False)
    assert len(task.committed) == 5
    task.merge.add(1, [Rec(70, "later", "u", 1), Rec(80, "late", "u", 1)], 90)
    task.merge.add(1, [Rec(95, "last", "u", 1)], 99)
    task.round(lose=False)
    task.reopen()
    assert task.merge.buffered == 3
    task.merge.add(0, [], 200)
    task.merge.add(1, [], 200)
    task.round(lose=False)
    assert task.committed[5:] == [Rec(101, name, "u", 1) for name in ("last", "late", "later")]
    assert task.store.keys(b"h") == []


def by_the_rules(frames: list[Frame], sources: int) -> tuple[list[Rec], list[int], int]:
    """Every record with its key, the watermark after each frame, and the number of late records."""
    watermarks, idle = [MIN_WATERMARK] * sources, [False] * sources
    merged, late, placed, watermarks_after = MIN_WATERMARK, 0, [], []
    for frame in frames:
        for record in frame.records:
            behind = record.closes_at <= merged
            placed.append(msgspec.structs.replace(record, closes_at=merged + 1) if behind else record)
            late += behind
        watermarks[frame.source] = max(watermarks[frame.source], frame.watermark)
        idle[frame.source] = frame.idle
        active = [watermark for watermark, quiet in zip(watermarks, idle, strict=True) if not quiet]
        merged = max(merged, min(active, default=max(watermarks)))
        watermarks_after.append(merged)
    return sorted(placed, key=key_of), watermarks_after, late


def named_once(frames: list[Frame]) -> list[Frame]:
    """Make request ids unique: two late pages with one id would have the same key."""
    numbers = count()
    return [
        frame._replace(
            records=sorted(
                (
                    msgspec.structs.replace(record, request_id=f"{record.request_id}{next(numbers)}")
                    for record in frame.records
                ),
                key=key_of,
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
    """For any memory limit, rounds and crashes."""
    rng = Random(seed)
    frames = [frame._replace(idle=rng.random() < 0.3) for frame in named_once(drawn_frames(seed, sources, 40))]
    placed, watermarks_after, late = by_the_rules(frames, sources)
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
        while task.passed < task.merge.watermark:
            task.round(lose=False)
        assert task.merge.watermark == watermarks_after[taken - 1]
        assert task.released == sum(
            record.closes_at <= watermarks_after[taken - 1] for record in placed_by(frames[:taken], sources)
        )
    for source in range(sources):
        task.merge.end_source(source)
    while task.passed < task.merge.watermark:
        task.round(lose=False)
    assert task.committed == placed
    assert task.merge.merged_watermark.late_records == late
    assert task.store.entries == {}


def placed_by(frames: list[Frame], sources: int) -> list[Rec]:
    return by_the_rules(frames, sources)[0]


def test_equal_ids_behind_one_watermark_get_distinct_order() -> None:
    task = SpillingTask(2, 100)
    task.merge.add(0, [], 100)
    task.merge.add(1, [], 1, idleness=IDLE)
    task.round(lose=False)
    task.merge.add(1, [Rec(70, "r", "u", 1), Rec(80, "r", "u", 1)], 90)
    task.merge.add(1, [Rec(95, "r", "u", 1)], 99)
    task.round(lose=False)
    task.reopen()
    task.merge.add(0, [], 200)
    task.merge.add(1, [], 200)
    task.round(lose=False)
    assert task.committed == [Rec(closes_at, "r", "u", 1) for closes_at in (101, 102, 103)]
