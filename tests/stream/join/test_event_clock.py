"""The event clock: watermark and future events, by hand-made examples and against a brute-force list."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK, EventClock, FutureEvent
from tests.kit.stages.events import DAY, HOUR, LATENESS, MINUTE, SECOND, T

YEAR = 365 * DAY


def clock_at(accepted: int | None = T) -> EventClock:
    return EventClock(LATENESS, HOUR, accepted)


def observe(clock: EventClock, ts: int, user_id: str, offset: int = 0) -> bool:
    """Process one record as a stage does: observe it, and quarantine it if it is a future event."""
    future_event = clock.observe(ts, user_id)
    if future_event:
        clock.quarantine(ts, user_id, offset, b"the line")
    return future_event


def test_the_watermark_is_the_largest_accepted_time_less_the_lateness() -> None:
    clock = clock_at(None)
    assert clock.watermark == MIN_WATERMARK
    for ts, expected in ((T, T), (T + 7, T + 7), (T - HOUR, T + 7), (T + HOUR, T + HOUR)):
        assert not observe(clock, ts, "u")
        assert clock.watermark == expected - LATENESS


def test_the_first_record_is_accepted_whatever_its_time() -> None:
    clock = clock_at(None)
    assert not observe(clock, T + 10 * YEAR, "u")
    assert clock.watermark == T + 10 * YEAR - LATENESS


def test_one_hour_ahead_is_accepted_and_one_millisecond_more_is_quarantined() -> None:
    clock = clock_at()
    assert observe(clock, T + HOUR + 1, "u")
    assert clock.watermark == T - LATENESS
    assert not observe(clock, T + HOUR, "u")
    assert clock.watermark == T + HOUR - LATENESS


def test_a_bad_clock_moves_nothing_however_often_its_user_repeats_it() -> None:
    clock = clock_at()
    for second in range(100):
        assert observe(clock, T + YEAR + second * SECOND, "bad")
    assert clock.watermark == T - LATENESS
    assert not observe(clock, T + SECOND, "good")
    assert clock.watermark == T + SECOND - LATENESS
    assert len(clock.future_events) == 100


def test_two_future_events_of_different_users_confirm_each_other() -> None:
    """A quiet night: the first two records of the morning."""
    clock = clock_at()
    assert observe(clock, T + 8 * HOUR, "first")
    assert not observe(clock, T + 8 * HOUR + MINUTE, "second")
    assert clock.watermark == T + 8 * HOUR + MINUTE - LATENESS
    assert clock.future_events == []


def test_a_confirming_record_may_itself_be_the_earlier_one() -> None:
    clock = clock_at()
    assert observe(clock, T + 8 * HOUR, "first")
    assert not observe(clock, T + 7 * HOUR, "second")
    assert clock.watermark == T + 8 * HOUR - LATENESS


def test_a_record_confirms_within_one_hour_on_either_side_and_not_beyond() -> None:
    for distance, confirms in ((HOUR, True), (-HOUR, True), (HOUR + 1, False), (-HOUR - 1, False)):
        clock = clock_at()
        assert observe(clock, T + DAY, "first")
        assert observe(clock, T + DAY + distance, "second") is not confirms
        expected = T + DAY + max(0, distance) if confirms else T
        assert clock.watermark == expected - LATENESS


def test_an_accepted_record_of_another_user_confirms_a_future_event_within_the_skew() -> None:
    clock = clock_at()
    assert observe(clock, T + 90 * MINUTE, "ahead")
    assert not observe(clock, T + 29 * MINUTE, "other")
    assert clock.watermark == T + 29 * MINUTE - LATENESS
    assert not observe(clock, T + 30 * MINUTE, "other")
    assert clock.watermark == T + 90 * MINUTE - LATENESS


def test_one_record_confirms_all_future_events_of_other_users_around_it() -> None:
    clock = clock_at()
    for user, ts in (("a", T + DAY), ("b", T + DAY + 110 * MINUTE), ("c", T + 2 * DAY)):
        assert observe(clock, ts, user)
    assert not observe(clock, T + DAY + 55 * MINUTE, "d")
    assert clock.watermark == T + DAY + 110 * MINUTE - LATENESS
    assert [future_event.user_id for future_event in clock.future_events] == ["c"]


def test_a_user_does_not_confirm_its_own_future_event_while_another_is_confirmed() -> None:
    clock = clock_at()
    assert observe(clock, T + DAY, "a")
    assert observe(clock, T + DAY + 100 * MINUTE, "b")
    assert not observe(clock, T + DAY + 50 * MINUTE, "a")
    assert clock.watermark == T + DAY + 100 * MINUTE - LATENESS
    assert [future_event.ts for future_event in clock.future_events] == [T + DAY]


def test_a_future_event_expires_when_the_watermark_has_advanced_by_one_hour() -> None:
    clock = clock_at()
    assert observe(clock, T + YEAR, "bad")
    assert clock.next_expiry == T - LATENESS + HOUR
    assert not observe(clock, T + HOUR - 1, "good")
    assert list(clock.pop_expired()) == []
    assert not observe(clock, T + HOUR, "good")
    assert [future_event.ts for future_event in clock.pop_expired()] == [T + YEAR]
    assert clock.future_events == []
    assert clock.next_expiry == MAX_WATERMARK


def test_future_events_expire_in_arrival_order() -> None:
    clock = clock_at()
    for offset, (ts, user) in enumerate([(T + 3 * YEAR, "b"), (T + YEAR, "a"), (T + 2 * YEAR, "b")]):
        assert observe(clock, ts, user, offset)
    assert not observe(clock, T + 20 * MINUTE, "good")
    assert observe(clock, T + 4 * YEAR, "a", 3)
    assert not observe(clock, T + HOUR, "good")
    assert [future_event.offset for future_event in clock.pop_expired()] == [0, 1, 2]
    assert not observe(clock, T + 80 * MINUTE, "good")
    assert [future_event.offset for future_event in clock.pop_expired()] == [3]


def test_an_expired_future_event_confirms_nothing() -> None:
    clock = clock_at()
    assert observe(clock, T + YEAR, "bad")
    assert not observe(clock, T + HOUR, "good")
    assert len(list(clock.pop_expired())) == 1
    assert observe(clock, T + YEAR, "other")


def test_a_future_event_that_the_accepted_time_has_reached_was_right() -> None:
    """An hour and a minute ahead and never confirmed, but the other records reach its time."""
    clock = clock_at()
    assert observe(clock, T + 61 * MINUTE, "u")
    assert not observe(clock, T + 30 * MINUTE, "u")
    assert not observe(clock, T + 80 * MINUTE, "u")
    assert list(clock.pop_expired()) == []
    assert clock.future_events == []


def test_is_ahead_is_more_than_one_hour_past_the_accepted_time() -> None:
    assert not clock_at(None).exceeds_max_skew(T + YEAR)
    assert not clock_at().exceeds_max_skew(T + HOUR)
    assert clock_at().exceeds_max_skew(T + HOUR + 1)


class ByList:
    """The rules of the event clock, literally, over plain lists."""

    def __init__(self) -> None:
        self.accepted: int | None = None
        self.future_events: list[tuple[int, str, int]] = []  # (ts, user, watermark at its arrival)

    def see(self, ts: int, user: str) -> bool:
        if self.accepted is None:
            self.accepted = ts
            return False
        near = [
            future_event
            for future_event in self.future_events
            if future_event[1] != user and abs(future_event[0] - ts) <= HOUR
        ]
        self.future_events = [future_event for future_event in self.future_events if future_event not in near]
        self.accepted = max([self.accepted, *(future_event[0] for future_event in near)])
        if ts - self.accepted > HOUR:
            return True
        self.accepted = max(self.accepted, ts)
        return False

    def expired(self) -> list[int]:
        assert self.accepted is not None
        watermark = self.accepted - LATENESS
        gone = [future_event for future_event in self.future_events if watermark - future_event[2] >= HOUR]
        self.future_events = [future_event for future_event in self.future_events if future_event not in gone]
        return [future_event[0] for future_event in gone if future_event[0] > self.accepted]


_records = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 1000), st.sampled_from("abcd")).map(
        lambda drawn: (T + drawn[0] * 15 * MINUTE + drawn[1], drawn[2])
    ),
    max_size=40,
)


@given(records=_records, reopen=st.sets(st.integers(0, 40)))
def test_agrees_with_plain_lists_and_resumes_from_stored_state(
    records: list[tuple[int, str]], reopen: set[int]
) -> None:
    clock, rules = clock_at(None), ByList()
    for offset, (ts, user) in enumerate(records):
        future_event = clock.observe(ts, user)
        assert future_event == rules.see(ts, user)
        assert rules.accepted is not None
        assert clock.watermark == rules.accepted - LATENESS
        if clock.watermark >= clock.next_expiry:
            assert [gone.ts for gone in clock.pop_expired()] == rules.expired()
        else:
            assert rules.expired() == []
        if future_event:
            clock.quarantine(ts, user, offset, b"")
            rules.future_events.append((ts, user, clock.watermark))
        assert [(held.ts, held.user_id) for held in clock.future_events] == [held[:2] for held in rules.future_events]
        if offset in reopen:
            stored: list[Any] = [FutureEvent(*_fields(held)) for held in clock.future_events]
            clock = EventClock(LATENESS, HOUR, clock.max_event_time, stored)


def _fields(future_event: FutureEvent) -> tuple[Any, ...]:
    return tuple(getattr(future_event, name) for name in future_event.__struct_fields__)
