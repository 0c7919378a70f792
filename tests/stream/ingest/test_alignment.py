"""Promises of the alignment: no input runs ahead of one with unread records, and the inputs never all wait."""

import logging
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition

from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.kafka.ingest import alignment as module
from prectr.stream.kafka.ingest.alignment import Alignment, InputPosition
from prectr.stream.kafka.ingest.read_ahead import ReadAhead
from prectr.stream.kafka.ingest.record_mapper import MappedRecord
from tests.stream.ingest.records import T, mapped_at

A, B, C = (TopicPartition(name, 0) for name in ("a", "b", "c"))
AHEAD = 5_000
STEP = AHEAD // 2
"""T is a multiple of it."""


def queue(*times: int | None) -> ReadAhead:
    """A queue of records with these times."""
    found = ReadAhead()
    found.add([mapped_at(offset, time) for offset, time in enumerate(times)])
    return found


def offsets(records: Sequence[MappedRecord]) -> list[int]:
    return [record.record.offset for record in records]


def test_records_are_taken_in_order_up_to_the_limit() -> None:
    waiting = queue(T, None, T + 1, T + 10, T + 2, None)
    assert offsets(waiting.take(T + 1)) == [0, 1, 2]
    assert waiting.time() == T + 2
    assert offsets(waiting.take(T + 2)) == [3, 4, 5]
    assert (waiting.first_offset, waiting.time()) == (None, T + 2)


def test_records_without_a_time_do_not_wait() -> None:
    waiting = queue(None, None, T + 9)
    assert offsets(waiting.take(T)) == [0, 1]
    assert waiting.time() == T + 9


def test_a_single_time_that_is_far_ahead_does_not_hold_the_input_back() -> None:
    year = 365 * 86_400_000
    waiting = queue(T, T + year, T + 1, T + 2, T + 3)
    assert waiting.take(T + 3) != []
    assert waiting.first_offset is None
    # Without a follower it waits.
    assert queue(T + year).take(T + 3) == []


def test_a_queue_that_is_full_is_not_any_more_after_records_were_taken() -> None:
    waiting = queue(*[T] * 8_192)
    assert waiting.is_full
    assert len(waiting.take(T)) == 8_192
    assert not waiting.is_full


def alignment_of(ends: dict[TopicPartition, int], stall_timeout: float = 30.0) -> Alignment:
    found = Alignment(AHEAD / 1000, stall_timeout)
    found.set_sample(ends, {})
    return found


def test_nothing_is_read_before_the_ends_are_known() -> None:
    found = Alignment(AHEAD / 1000, 30.0)
    found.set_own("a", {A: InputPosition(0, T)})
    assert found.limit() == MIN_WATERMARK


def test_the_limit_follows_the_input_that_is_furthest_behind() -> None:
    found = alignment_of({A: 10, B: 10})
    found.set_own("a", {A: InputPosition(3, T)})
    found.set_own("b", {B: InputPosition(0, None)})
    assert found.limit() == MIN_WATERMARK
    found.set_own("b", {B: InputPosition(1, T - 7)})
    assert found.limit() == T + AHEAD - STEP
    found.set_own("b", {B: InputPosition(10, T - 7)})
    assert found.limit() == T + AHEAD
    found.set_own("a", {A: InputPosition(10, T)})
    assert found.limit() == MAX_WATERMARK
    found.set_own("a", {A: InputPosition(10, T, has_waiting=True)})
    assert found.limit() == T + AHEAD


@pytest.mark.parametrize("max_ahead", [0.0, 0.001, 0.25, 5.0])
def test_the_limit_is_between_half_and_all_of_what_is_allowed(max_ahead: float) -> None:
    for millis in range(0, 5_000, 7):
        found = Alignment(max_ahead, 30.0)
        found.set_sample({A: 10}, {A: InputPosition(3, T + millis)})
        ahead = found.limit() - (T + millis)
        assert max_ahead * 1000 / 2 <= ahead <= max_ahead * 1000


def test_records_that_cannot_be_mapped_wait_for_none_and_others_for_the_first_event_after_them() -> None:
    found = alignment_of({A: 10, B: 10})
    found.set_own("a", {A: InputPosition(3, T)})
    found.set_own("b", {B: InputPosition(1, None)})
    assert found.limit() == MIN_WATERMARK
    assert queue(None, None).take(MIN_WATERMARK) != []
    found.set_own("b", {B: InputPosition(10, None)})
    assert found.limit() == T + AHEAD


def test_positions_of_other_processes_count_until_the_input_is_this_ones() -> None:
    found = alignment_of({A: 10, B: 10})
    found.set_own("a", {A: InputPosition(3, T)})
    assert found.others([A, B]) == [B]
    found.set_sample({A: 10, B: 10}, {B: InputPosition(5, T - 50)})
    assert found.limit() == T + AHEAD - STEP
    found.set_own("b", {B: InputPosition(7, T - 20)})
    # A sample that was taken before says no more.
    found.set_sample({A: 10, B: 10}, {B: InputPosition(5, T - 50)})
    assert found.limit() == T + AHEAD - STEP


def test_an_input_that_stands_is_waited_for_only_so_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    found = alignment_of({A: 10, B: 10})
    found.set_own("a", {A: InputPosition(3, T, has_waiting=True)})
    found.set_own("b", {B: InputPosition(2, T - 9_000)})
    now += 29
    assert found.limit() == T - 10_000 + AHEAD
    now += 2
    with caplog.at_level(logging.WARNING):
        assert [found.limit() for _ in range(3)] == [T + AHEAD] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "b partition 0: no record after offset 2 for 30 s, although there are: the other inputs go on"
    ]
    found.set_own("b", {B: InputPosition(3, T - 8_000)})
    assert found.limit() == T - 10_000 + AHEAD


def _in_order(found: Sequence[int | None]) -> list[int | None]:
    """Sort the times, and leave the records without a time where they are."""
    known = iter(sorted(time for time in found if time is not None))
    return [None if time is None else T + next(known) for time in found]


times = st.lists(st.none() | st.integers(0, 60_000), max_size=25).map(_in_order)


@given(st.tuples(times, times, times), st.data())
def test_inputs_are_read_in_step_and_to_their_ends(logs: tuple[list[int | None], ...], data: st.DataObject) -> None:
    """Inputs whose times do not run back: whatever is fetched when, a record is processed only once no other input has
    an unread record that is more than the limit older. In each round something is fetched or processed."""
    inputs = dict(zip((A, B, C), logs, strict=True))
    queues = {each: ReadAhead() for each in inputs}
    fetched, processed = dict.fromkeys(inputs, 0), dict.fromkeys(inputs, 0)
    found = alignment_of({each: len(log) for each, log in inputs.items()})
    while any(processed[each] < len(log) for each, log in inputs.items()):
        before = dict(fetched), dict(processed)
        for each, log in inputs.items():
            count = data.draw(st.integers(0, 4)) if any(fetched[i] < len(inputs[i]) for i in inputs) else 0
            chunk = log[fetched[each] : fetched[each] + count]
            queues[each].add([mapped_at(fetched[each] + n, time) for n, time in enumerate(chunk)])
            fetched[each] += len(chunk)
        for each in inputs:
            waiting = queues[each].first_offset is not None
            position = InputPosition(processed[each], queues[each].time(), waiting)
            found.set_own(each.topic, {each: position})
        limit = found.limit()
        oldest = {
            each: min((time for time in log[processed[each] :] if time is not None), default=None)
            for each, log in inputs.items()
        }
        for each in inputs:
            for record in queues[each].take(limit):
                assert record.record.offset == processed[each]
                processed[each] += 1
                for other, time in oldest.items():
                    if other != each and time is not None and record.time is not None:
                        assert record.time <= time + AHEAD
        if all(fetched[each] == len(log) for each, log in inputs.items()):
            assert (fetched, processed) != before
