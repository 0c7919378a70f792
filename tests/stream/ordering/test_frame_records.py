"""Frames that somebody else wrote: the error names where they are, and nothing out of range gets past the decoder."""

import math
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition

from prectr.state.errors import StateError
from prectr.stream.aggregate.operator import Aggregate
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Item, ResultPage
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.join.outcomes import ClickOutcomes, Outcomes, PageOutcomes
from prectr.stream.kafka.io.example_reader import ExampleReader
from prectr.stream.kafka.tasks.aggregate_task import AggregateTask
from prectr.stream.ordering.frame_records import examples_of, joined_pages_of
from prectr.stream.ordering.frames import FRAME_FORMAT, Frame, SourceProgress, decode_frame, encode_frames
from prectr.stream.ordering.ordered_merge import OrderedMerge
from prectr.stream.ordering.watermark import SourceIdleness
from prectr.stream.records import Example, JoinedPage, QueryClick, UserClick, encode_record

TS = 1_700_000_000_000
YEAR = 366 * 86_400_000
FIRST, LAST = 946_684_800_000 - YEAR, 253_402_300_799_999 + 2 * YEAR
WHERE = "joined-pages partition 1 offset 77"
TASKS = 4

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode

PAGE = ResultPage(
    "r1",
    "u1",
    "Red shoes",
    TS,
    [
        Item("i1", "Trail shoe", 4, 59.9, "shoes", "brand", 1, {"stars": 4.5, "colour": "red"}),
        Item("i2", None, 1, None, None, None, 2),
    ],
    {"device": "phone"},
    {"temperature": 20.0},
)
HISTORY = msgspec.Raw(encode([UserClick(TS - 9, "r0", "i9", "boots", None, 3, None, None, 10.0)]))
QUERY_CLICK = encode(QueryClick(TS + 5, "i1", 4, "shoes", "brand", 59.9))
JOINED = JoinedPage(
    TS + 120_000,
    "r1",
    "u1",
    TS,
    "red shoes",
    b"\1\0",
    b"\4\1",
    (1, 0, 0, 1, 0, 0, 0, 1),
    1,
    (0, 0, 2, 0, 0, 0, 1, 0),
    HISTORY,
    msgspec.Raw(encode(PAGE)),
    (QUERY_CLICK,),
)
EXAMPLE = Example(
    TS + 120_000,
    "r1",
    "u1",
    TS,
    "red shoes",
    b"\1\0",
    b"\4\1",
    1,
    (0, 0, 2, 0, 0, 0, 1, 0),
    (5, 0, 0, 1, 0, 0, 0, 1),
    ((0.5, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.1),) * 3,
    HISTORY,
    msgspec.Raw(encode([decode(QUERY_CLICK)])),
    msgspec.Raw(encode(PAGE)),
)
PROGRESS = SourceProgress(
    watermark=TS,
    read_offset=12,
    idleness=SourceIdleness([3, 4, 5, 6], MAX_WATERMARK - 1),
    reached_end_offsets={1: 1 << 53},
    outcomes={1: Outcomes(PageOutcomes(received=3, emitted=3), ClickOutcomes())},
)
VALUES = {
    "joined": encode_frames(1, 0, [encode_record(JOINED)], PROGRESS)[0],
    "examples": encode_frames(1, 0, [encode_record(EXAMPLE)], PROGRESS)[0],
}
RECORDS_OF = {"joined": joined_pages_of, "examples": examples_of}
NESTED = b"\x91" * 100_000

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.sampled_from([-1, 0, 1 << 40, 1 << 62, (1 << 62) + 1, 1 << 63, TS * 1000])
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.integers(0, 9) | st.text(max_size=3), inner),
    max_leaves=12,
)


def is_time(watermark: int) -> bool:
    return watermark in (MIN_WATERMARK, MAX_WATERMARK) or FIRST <= watermark <= LAST


def check(frame: Frame, records: list[Any]) -> None:
    """Everything that a reader of the frame relies on, worked out from the contract, not from the decoder."""
    assert 0 <= frame.source < TASKS
    assert all(0 <= task < TASKS for task in (*frame.reached_end_offsets, *frame.outcomes))
    assert is_time(frame.watermark)
    assert 0 <= frame.read_offset <= 1 << 62
    assert 0 <= frame.sequence <= 1 << 62
    assert 0 <= frame.late_records <= 1 << 53
    if frame.idleness is not None:
        assert len(frame.idleness.observed_offsets) == TASKS
        assert min(frame.idleness.observed_offsets) >= 0
    for outcomes in frame.outcomes.values():
        counts = (*msgspec.structs.astuple(outcomes.pages), *msgspec.structs.astuple(outcomes.clicks))
        assert min(*counts, outcomes.unreadable) >= 0
    for record in records:
        assert FIRST + YEAR <= record.ts <= LAST - 2 * YEAR
        assert FIRST + YEAR <= record.closes_at <= LAST
        assert 1 <= len(record.request_id) <= 256
        assert 1 <= len(record.user_id) <= 256
        assert len(record.labels) == len(record.levels) <= 200
        assert set(record.labels) <= {0, 1}
        assert set(record.levels) <= {1, 2, 3, 4}
        assert 0 <= record.user_activity <= 1 << 53
        assert all(0 <= count <= 1 << 53 for count in record.user_stats)
        if isinstance(record, Example):
            page = decode(record.page, type=ResultPage)
            assert [item.position is not None for item in page.items] == [True] * len(record.labels)
            assert all(math.isfinite(item.price) for item in page.items if item.price is not None)
            assert all(0 <= each <= 1 << 53 for sums in record.query_decayed for each in sums)
        else:
            assert sum(record.counts) == len(record.labels) + sum(record.labels)


def read(kind: str, value: bytes) -> tuple[Frame, list[Any]] | None:
    """What a reader gets of a value; None if it gets the error of damage, with the address."""
    try:
        frame = decode_frame(value, WHERE, TASKS)
        return frame, list(RECORDS_OF[kind](frame, WHERE))
    except StateError as error:
        message = str(error)
    assert message.startswith(f"{WHERE}: ")
    assert "topic prefix" in message
    return None


@pytest.mark.parametrize("kind", VALUES)
def test_a_frame_of_our_own_is_read_as_it_was_written(kind: str) -> None:
    found = read(kind, VALUES[kind])
    assert found is not None
    check(*found)
    assert found[1] == [JOINED if kind == "joined" else EXAMPLE]
    assert decode_frame(VALUES[kind], WHERE).source == 1


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(sorted(VALUES)), value=st.binary(max_size=200) | anything.map(encode), known=st.booleans())
def test_whatever_is_in_the_topic_only_the_error_of_damage_leaves_the_decoder(
    kind: str, value: bytes, known: bool
) -> None:
    found = read(kind, bytes((FRAME_FORMAT,)) * known + value)
    if found is not None:
        check(*found)


def paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value in lists and maps."""
    found = [path]
    if isinstance(node, list | dict):
        for key, each in node.items() if isinstance(node, dict) else enumerate(node):
            found += paths(each, (*path, key))
    return found


def replaced(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = replaced(node[path[0]], path[1:], value)
    return copy


def plain(kind: str) -> Any:
    return decode(VALUES[kind][1:], strict=False)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(VALUES)), value=anything)
def test_a_frame_with_one_value_changed_is_damaged_or_in_range(data: st.DataObject, kind: str, value: Any) -> None:
    fields = plain(kind)
    path = data.draw(st.sampled_from(paths(fields)))
    found = read(kind, bytes((FRAME_FORMAT,)) + encode(replaced(fields, path, value)))
    if found is not None:
        check(*found)


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(sorted(VALUES)), at=st.integers(1, 10_000), byte=st.integers(0, 255))
def test_a_frame_with_one_byte_changed_is_damaged_or_in_range(kind: str, at: int, byte: int) -> None:
    value = bytearray(VALUES[kind])
    value[at % len(value)] = byte
    found = read(kind, bytes(value))
    if found is not None:
        check(*found)


@pytest.mark.parametrize("kind", VALUES)
def test_deep_nesting_anywhere_in_a_frame_is_damage(kind: str) -> None:
    assert read(kind, bytes((FRAME_FORMAT,)) + NESTED) is None
    fields = plain(kind)
    for path in paths(fields):
        value = encode(replaced(fields, path, "NESTED")).replace(encode("NESTED"), NESTED + b"\1")
        assert read(kind, bytes((FRAME_FORMAT,)) + value) is None, path


JOINED_FORGERIES = {
    "a level 7": {"levels": b"\7\1"},
    "a label 2": {"labels": b"\2\0"},
    "a level less": {"levels": b"\4"},
    "a time in microseconds": {"ts": TS * 1000},
    "counts of another page": {"counts": (2, 0, 0, 1, 0, 0, 0, 1)},
    "a negative count": {"user_stats": (0, 0, -1, 0, 0, 0, 0, 0)},
    "a click that is none": {"clicks": (b"\x91\1",)},
    "201 items": {"labels": bytes(201), "levels": b"\1" * 201, "counts": (201, 0, 0, 0, 0, 0, 0, 0)},
    "an id of 300 characters": {"request_id": "r" * 300},
}
EXAMPLE_FORGERIES = {
    "a sum that is no number": {"query_decayed": ((math.nan,) * 8,) * 3},
    "another page": {"page": msgspec.Raw(encode(msgspec.structs.replace(PAGE, request_id="r2")))},
    "a page with an item more": {"page": msgspec.Raw(encode(msgspec.structs.replace(PAGE, items=PAGE.items * 2)))},
    "an item without a position": {
        "page": msgspec.Raw(encode(msgspec.structs.replace(PAGE, items=[Item("i1"), Item("i2")])))
    },
    "a feature that is infinite": {
        "page": msgspec.Raw(encode(msgspec.structs.replace(PAGE, features={"t": math.inf})))
    },
}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("joined", each) for each in JOINED_FORGERIES.values()]
    + [("examples", each) for each in EXAMPLE_FORGERIES.values()],
    ids=[*JOINED_FORGERIES, *EXAMPLE_FORGERIES],
)
def test_a_record_that_no_task_writes_is_damage(kind: str, changes: dict[str, Any]) -> None:
    record = msgspec.structs.replace(JOINED if kind == "joined" else EXAMPLE, **changes)
    assert read(kind, encode_frames(1, 0, [encode_record(record)], PROGRESS)[0]) is None


@pytest.mark.parametrize(
    ("watermark", "is_read"),
    [
        (MIN_WATERMARK, True),
        (FIRST, True),
        (LAST, True),
        (MAX_WATERMARK, True),
        (FIRST - 1, False),
        (LAST + 1, False),
        (TS * 1000, False),
        (MAX_WATERMARK - 1, False),
        (MAX_WATERMARK + 1, False),
    ],
)
def test_a_watermark_is_an_event_time_or_the_beginning_or_the_end(watermark: int, is_read: bool) -> None:
    (value,) = encode_frames(1, 0, [], SourceProgress(watermark=watermark))
    assert (read("joined", value) is not None) == is_read


@pytest.mark.parametrize(
    "progress",
    [
        SourceProgress(watermark=TS, idleness=SourceIdleness([0] * (TASKS - 1), TS)),
        SourceProgress(watermark=TS, idleness=SourceIdleness([0] * (TASKS + 1), TS)),
        SourceProgress(watermark=TS, reached_end_offsets={TASKS: 1}),
        SourceProgress(watermark=TS, outcomes={TASKS: Outcomes()}),
    ],
)
def test_a_frame_about_more_or_fewer_tasks_than_there_are_is_damage(progress: SourceProgress) -> None:
    assert read("joined", encode_frames(1, 0, [], progress)[0]) is None


def forged_sources() -> list[bytes]:
    frames = [plain("joined") for _ in range(3)]
    for frame, source in zip(frames, (1 << 40, -1, TASKS), strict=True):
        frame[0] = source
    return [bytes((FRAME_FORMAT,)) + encode(frame) for frame in frames]


@pytest.mark.parametrize("value", [*forged_sources(), bytes((FRAME_FORMAT,)) + NESTED, b"", b"\xff"])
def test_the_aggregate_stage_stops_with_the_address_of_a_forged_frame(value: bytes) -> None:
    aggregate = Aggregate(PipelineConfig(partitions=TASKS), _EmptyStore(), TASKS)
    task: Any = SimpleNamespace(_aggregate=aggregate, context=SimpleNamespace(config=PipelineConfig(partitions=TASKS)))
    record: Any = SimpleNamespace(topic="joined-pages", partition=1, offset=77, value=value)
    with pytest.raises(StateError, match=r"^joined-pages partition 1 offset 77: .*topic prefix"):
        AggregateTask._ingest(task, [record], 78)
    assert aggregate.next_offset == 0


def test_the_aggregate_stage_names_the_address_of_a_repeated_frame() -> None:
    config = PipelineConfig(partitions=TASKS)
    task: Any = SimpleNamespace(
        _aggregate=Aggregate(config, _EmptyStore(), TASKS), context=SimpleNamespace(config=config)
    )
    records: list[Any] = [
        SimpleNamespace(topic="joined-pages", partition=1, offset=offset, value=VALUES["joined"]) for offset in (5, 6)
    ]
    with pytest.raises(StateError, match=r"^joined-pages partition 1 offset 6: frame 0 of join task 1 arrived where 1"):
        AggregateTask._ingest(task, records, 7)


def test_the_trainer_stops_with_the_address_of_a_frame_that_another_task_wrote() -> None:
    reader: Any = SimpleNamespace(
        _topic="training-examples",
        _partitions=[TopicPartition("training-examples", number) for number in range(TASKS)],
        _sequences=[0] * TASKS,
        _offsets=[0] * TASKS,
        _merge=OrderedMerge(TASKS),
    )
    with pytest.raises(StateError, match=r"^training-examples partition 2 offset 8: .*it is of task 1.*topic prefix"):
        ExampleReader._add_frame(reader, 2, VALUES["examples"], 8)
    with pytest.raises(StateError, match=r"^training-examples partition 1 offset 8: "):
        ExampleReader._add_frame(reader, 1, bytes((FRAME_FORMAT,)) + NESTED, 8)
    assert reader._offsets == [0] * TASKS


def test_the_trainer_stops_where_examples_of_other_half_lives_begin() -> None:
    """The sums of a batch are one array."""
    reader: Any = SimpleNamespace(
        _topic="training-examples",
        _partitions=[TopicPartition("training-examples", number) for number in range(TASKS)],
        _sequences=[0] * TASKS,
        _offsets=[0] * TASKS,
        _merge=OrderedMerge(TASKS),
        _half_lives=None,
        outcomes={},
        _reached_end_offsets=[{} for _ in range(TASKS)],
        _late_records=[0] * TASKS,
    )
    other = msgspec.structs.replace(EXAMPLE, query_decayed=EXAMPLE.query_decayed[:2])
    ExampleReader._add_frame(reader, 1, encode_frames(1, 0, [encode_record(EXAMPLE)], PROGRESS)[0], 3)
    with pytest.raises(StateError, match=r"^training-examples partition 1 offset 4: .*sums of 2 half-lives"):
        ExampleReader._add_frame(reader, 1, encode_frames(1, 1, [encode_record(other)], PROGRESS)[0], 4)
    assert reader._offsets == [0, 4, 0, 0]


class _EmptyStore:
    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        return [None] * len(keys)

    def scan(self, start: bytes, end: bytes) -> Any:
        return iter(())
