"""Stage `aggregate` in C++ against its specification in Python: examples, changes and state, byte by byte."""

from collections.abc import Sequence
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("prectr.stream.native.core", reason="the extension is not built")

from prectr.state.aggregates import count_levels
from prectr.state.errors import PrectrError, StateError
from prectr.stream.aggregate import operator
from prectr.stream.aggregate.operator import Aggregate
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import MAX_ITEMS, Item, ResultPage
from prectr.stream.events.event_time import MAX_TS, MIN_TS
from prectr.stream.native.aggregate import NativeAggregate
from prectr.stream.ordering.frames import Frame, SourceProgress, decode_frame, encode_frames
from prectr.stream.ordering.watermark import SourceIdleness
from prectr.stream.records import (
    MAX_CLOSES_AT,
    JoinedPage,
    QueryClick,
    UserClick,
    encode_record,
    order_key_of,
)
from tests.kit.stages.events import DAY, HOUR, SECOND, T
from tests.kit.stages.store import DictStore

SMALL = PipelineConfig(half_lives=(3600.0, 86_400.0), query_clicks=2, query_ttl=7200.0)
QUERIES = ("usb cable", "", "q", "straße", "日本語", "a\0b", "x" * 5000)
IDS = ("u", "ü", "w\0x", "\0", "日", "y" * 256)


def page(rng: Random, closes_at: int) -> JoinedPage:
    items = rng.choice((1, 1, 3, 10, MAX_ITEMS))
    labels = bytes(rng.choice((0, 0, 0, 1)) for _ in range(items))
    levels = bytes(rng.randint(1, 4) for _ in range(items))
    ts = closes_at - rng.choice((1, SECOND, HOUR))
    request_id, user_id, query = f"r{rng.randrange(1 << 20)}", rng.choice(IDS), rng.choice(QUERIES)
    clicks = [
        QueryClick(
            ts, rng.choice(IDS), rng.randint(1, 4), rng.choice((None, "c", "é" * 100)), None, rng.choice((None, 2.5))
        )
        for _ in range(rng.choice((0, 0, 1, 3)))
    ]
    history = [UserClick(ts, "r", "i", "q", None, 1, None, None, None) for _ in range(rng.choice((0, 1, 20)))]
    shown = ResultPage(request_id, user_id, query[:9], ts, [Item(f"i{n}", relevance=n) for n in levels])
    return JoinedPage(
        closes_at,
        request_id,
        user_id,
        ts,
        query,
        labels,
        levels,
        count_levels(levels, labels),
        rng.choice((0, 7, 1 << 40)),
        (1, 2, 3, 4, 0, 0, 0, 1 << 53),
        msgspec.Raw(encode_record(history)),
        msgspec.Raw(encode_record(shown)),
        tuple(encode_record(click) for click in clicks),
    )


def frames_of(rng: Random, sources: int, count: int) -> list[Frame]:
    """Frames of tasks that read on unevenly, stop and are idle; a source may be behind what an idleness allowed."""
    sequences, watermarks, offsets = [0] * sources, [T] * sources, [0] * sources
    frames: list[Frame] = []
    for _ in range(count):
        source = rng.randrange(sources)
        step = rng.choice((0, 5, SECOND, 60 * SECOND, HOUR, DAY))
        records = rng.choice((0, 1, 4, 12)) if step else 0
        times = sorted(watermarks[source] + rng.randint(1, step) for _ in range(records))
        watermarks[source] += step
        offsets[source] += rng.choice((0, 3))
        idleness = SourceIdleness([*offsets], watermarks[source] + rng.choice((0, DAY)))
        progress = SourceProgress(
            watermark=watermarks[source],
            read_offset=offsets[source],
            idleness=rng.choice((None, None, None, idleness)),
        )
        pages = sorted((page(rng, time) for time in times), key=order_key_of)
        values = encode_frames(source, sequences[source], [encode_record(each) for each in pages], progress)
        sequences[source] += len(values)
        frames += [decode_frame(value, "here") for value in values]
    return frames


Tasks = dict[type[Aggregate] | type[NativeAggregate], Aggregate | NativeAggregate]
KINDS: Sequence[type[Aggregate] | type[NativeAggregate]] = (Aggregate, NativeAggregate)


def opened(stores: dict[type, DictStore], config: PipelineConfig, sources: int) -> Tasks:
    return {kind: kind(config, stores[kind], sources) for kind in KINDS}


def assert_equal(seed: int, config: PipelineConfig, *, restart: float, commit: float, lag: float = 0.0) -> int:
    """Feed both the same frames; after a restart each goes on with the state that the other one has written."""
    rng = Random(seed)
    sources = rng.choice((1, 2, 3))
    stores: dict[type, DictStore] = {kind: DictStore() for kind in KINDS}
    tasks = opened(stores, config, sources)
    frames = frames_of(rng, sources, 60)
    committed = 0

    def process() -> None:
        nonlocal committed
        skip = committed - rng.randint(0, 3) if rng.random() < lag else committed
        ours, theirs = (tasks[kind].process_encoded(skip) for kind in (NativeAggregate, Aggregate))
        assert ours == theirs
        for name in ("watermark", "has_backlog", "emitted", "late_records", "max_source_watermark", "next_sequences"):
            assert getattr(tasks[NativeAggregate], name) == getattr(tasks[Aggregate], name), name
        assert tasks[NativeAggregate].buffered == tasks[Aggregate].buffered  # type: ignore[union-attr]
        committed = tasks[Aggregate].emitted

    def write() -> None:
        changes = {kind: tasks[kind].drain_changes() for kind in KINDS}
        assert changes[NativeAggregate] == changes[Aggregate]
        for kind in KINDS:
            stores[kind].write(changes[kind])

    for number, frame in enumerate(frames):
        for kind in KINDS:
            tasks[kind].add_frame(frame, "here")
            tasks[kind].next_offset = number + 1
        if rng.random() < 0.7:
            process()
        if rng.random() < commit:
            write()
            while tasks[Aggregate].has_backlog:
                process()
                write()
            if rng.random() < restart:
                stores = {Aggregate: stores[NativeAggregate], NativeAggregate: stores[Aggregate]}
                tasks = opened(stores, config, sources)
    for source in range(sources):
        for kind in KINDS:
            tasks[kind].end_source(source)
    process()
    write()
    while tasks[Aggregate].has_backlog:
        process()
        write()
    assert stores[Aggregate].keys(b"h") == stores[NativeAggregate].keys(b"h") == []
    return tasks[Aggregate].late_records


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    config=st.sampled_from([PipelineConfig(), SMALL]),
    restart=st.sampled_from([0.0, 0.3, 1.0]),
    commit=st.sampled_from([0.1, 0.5, 1.0]),
    held=st.sampled_from([2, 5, 40, 16_384]),
    cached=st.sampled_from([0, 2, 4_096]),
)
def test_examples_changes_and_state(
    seed: int, config: PipelineConfig, restart: float, commit: float, held: int, cached: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "MAX_BUFFERED_RECORDS", held)
        patch.setattr(operator, "CACHED_QUERIES", cached)
        assert_equal(seed, config, restart=restart, commit=commit, lag=0.2)


def test_some_of_these_worlds_have_late_records() -> None:
    assert sum(assert_equal(seed, SMALL, restart=0.2, commit=0.5) > 0 for seed in range(12)) > 3


# --- records that no task has written ------------------------------------------------------------------------------


def frame(record: bytes) -> Frame:
    (value,) = encode_frames(0, 0, [record], SourceProgress(watermark=MAX_CLOSES_AT))
    return decode_frame(value, "here")


def outcome(kind: type[Aggregate] | type[NativeAggregate], record: bytes) -> object:
    """What a task makes of one record: its examples and its state, or the error."""
    task = kind(PipelineConfig(), DictStore(), 1)
    try:
        task.add_frame(frame(record), "joined-pages partition 1 offset 7")
    except PrectrError as error:
        return str(error), task.next_sequences, task.late_records
    return task.process_encoded(0), task.drain_changes()


def is_refused(result: object) -> bool:
    return isinstance(result, tuple) and isinstance(result[0], str)


def assert_same_outcome(record: bytes) -> object:
    expected = outcome(Aggregate, record)
    assert outcome(NativeAggregate, record) == expected
    return expected


@settings(max_examples=800, deadline=None)
@given(seed=st.integers(0, 40), changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3))
def test_damaged_records_are_refused_in_the_same_words(seed: int, changes: list[tuple[int, int]]) -> None:
    """What Python accepts may be written in another form, so only what is in the usual one is compared."""
    made = bytearray(encode_record(page(Random(seed), T)))
    for at, byte in changes:
        made[at % len(made)] = byte
    record = bytes(made)
    expected, found = (outcome(kind, record) for kind in (Aggregate, NativeAggregate))
    assert is_refused(found) == is_refused(expected)
    assert found == expected or not is_refused(expected)


def plain(**changed: object) -> JoinedPage:
    return msgspec.structs.replace(page(Random(3), T), **changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"closes_at": MIN_TS},
        {"closes_at": MAX_CLOSES_AT},
        {"ts": MIN_TS},
        {"ts": MAX_TS},
        {"request_id": "é" * 256},
        {"user_id": "y" * 256},
        {"query": "é" * 128_000},
        {"user_activity": 1 << 53},
        {"user_stats": (1 << 53,) * 8},
        {"clicks": (encode_record(QueryClick(MAX_TS, "é" * 256, 4, "é" * 256, "", -0.0)),) * MAX_ITEMS},
        {"clicks": (encode_record([T, "i", 1, None, None, 3]),)},
        {"clicks": (encode_record([T, "i", 1, None, None, None, "of a later version"]),)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_the_limits_are_those_of_python(changed: dict[str, object]) -> None:
    examples, _ = assert_same_outcome(encode_record(plain(**changed)))[0]  # type: ignore[index]
    assert len(examples) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"closes_at": MIN_TS - 1},
        {"closes_at": MAX_CLOSES_AT + 1},
        {"ts": MIN_TS - 1},
        {"ts": MAX_TS + 1},
        {"request_id": ""},
        {"user_id": "é" * 257},
        {"query": "é" * 128_001},
        {"labels": b""},
        {"labels": b"\2"},
        {"levels": b"\0"},
        {"counts": (0,) * 8},
        {"user_activity": -1},
        {"user_activity": (1 << 53) + 1},
        {"clicks": (b"",)},
        {"clicks": (encode_record(QueryClick(T, "i", 5, None, None, None)),)},
        {"clicks": (encode_record(QueryClick(T, "i", 1, None, None, float("inf"))),)},
        {"clicks": (encode_record(QueryClick(T, "i", 1, None, None, float("nan"))),)},
        {"clicks": (encode_record(QueryClick(T, "i", 1, None, None, 1.0)),) * (MAX_ITEMS + 1)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_is_out_of_them_is_refused_with_its_address(changed: dict[str, object]) -> None:
    error, sequences, _ = assert_same_outcome(encode_record(plain(**changed)))  # type: ignore[misc]
    assert error.startswith("joined-pages partition 1 offset 7: not a frame (")
    assert sequences == [0]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_state_is_an_error(data: st.DataObject) -> None:
    store = DictStore()
    task = NativeAggregate(SMALL, store, 2)
    for each in frames_of(Random(5), 2, 20):
        task.add_frame(each, "here")
    task.process()
    store.write(task.drain_changes())
    key = data.draw(st.sampled_from([*store.keys(b"h"), *store.keys(b"q")]))
    (value,) = store.get_many([key])
    assert value is not None
    damaged = bytearray(value)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    store.write({key: bytes(damaged[: data.draw(st.integers(0, len(damaged)))])})
    try:
        again = NativeAggregate(SMALL, store, 2)
        again.add(0, [page(Random(n), T + DAY + n) for n in range(9)], T + 2 * DAY)
        again.end_source(0)
        again.end_source(1)
        again.process_encoded(0)
        again.drain_changes()
    except StateError:
        pass
