"""The event clock: by hand-made examples, and against the rule over the list of all records."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK, ClockState, EventClock
from prectr.stream.join.future_events import FutureEvents
from testkit.oracle.clock import Clock
from tests.kit.stages.clock_logs import clock_world, times_of
from tests.kit.stages.events import DAY, HOUR, LATENESS, MINUTE, SECOND, T
from tests.kit.stages.store import DictStore

YEAR = 365 * DAY


def clock_at(accepted: int | None = T) -> EventClock:
    return EventClock(LATENESS, HOUR, ClockState(accepted))


def crowd(clock: EventClock, users: int, ts: int = T) -> None:
    """Each of so many users is seen at `ts`."""
    for user in range(users):
        assert not clock.observe(ts, f"of the crowd {user}")


# --- one record ----------------------------------------------------------------------------------------------------


def test_the_watermark_is_the_largest_accepted_time_less_the_lateness() -> None:
    clock = clock_at()
    for ts, expected in ((T, T), (T + 7, T + 7), (T - HOUR, T + 7), (T + HOUR, T + HOUR)):
        assert not clock.observe(ts, "u")
        assert clock.watermark == expected - LATENESS


def test_one_hour_ahead_is_within_reach_and_one_millisecond_more_is_not() -> None:
    clock = clock_at()
    assert clock.observe(T + HOUR + 1, "u")
    assert clock.watermark == T - LATENESS
    assert not clock.observe(T + HOUR, "u")
    assert clock.watermark == T + HOUR - LATENESS


@pytest.mark.parametrize(("users", "moves"), [(4, True), (5, False)])
def test_in_a_crowd_one_user_does_not_move_the_time_by_more_than_a_quarter_of_an_hour(users: int, moves: bool) -> None:
    """Six users are a crowd; else users an hour, two and three ahead would pull the time on from one to the next."""
    clock = clock_at()
    crowd(clock, users)
    assert not clock.observe(T + 16 * MINUTE, "u")
    assert clock.watermark == T + (16 * MINUTE if moves else 0) - LATENESS
    assert not clock.observe(T + 15 * MINUTE, "u")
    assert clock.watermark == T + (16 if moves else 15) * MINUTE - LATENESS


def test_a_crowd_that_was_here_more_than_a_quarter_of_an_hour_ago_is_none() -> None:
    clock = clock_at()
    crowd(clock, 11)
    for minute in (10, 20):
        assert not clock.observe(T + minute * MINUTE, "v")
    assert not clock.observe(T + 50 * MINUTE, "w")
    assert clock.watermark == T + 50 * MINUTE - LATENESS


def test_half_an_hour_of_one_user_alone_moves_the_time_in_a_crowd() -> None:
    clock = clock_at()
    crowd(clock, 11)
    for minute in (16, 30, 45):
        clock.observe(T + minute * MINUTE, "u")
        assert clock.watermark == T - LATENESS
    clock.observe(T + 46 * MINUTE, "u")
    assert clock.watermark == T + 46 * MINUTE - LATENESS


# --- votes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("users", "votes"), [(2, 2), (3, 2), (4, 3), (12, 8), (21, 14)])
def test_after_a_night_two_thirds_of_the_users_move_the_time(users: int, votes: int) -> None:
    """To the earliest time among as many, and on with those who followed by up to a quarter of an hour."""
    clock = clock_at()
    crowd(clock, users)
    for user in range(votes):
        assert clock.watermark == T - LATENESS
        is_ahead = clock.observe(T + 9 * HOUR + user * MINUTE, f"of the crowd {user}")
        assert is_ahead is (user < votes - 1)
    assert clock.watermark == T + 9 * HOUR + (votes - 1) * MINUTE - LATENESS


def test_sixteen_users_in_a_row_are_the_stream_however_many_there_were() -> None:
    clock = clock_at()
    crowd(clock, 64)
    for user in range(15):
        assert clock.observe(T + 9 * HOUR, f"early {user}")
    assert not clock.observe(T, "still here")
    for user in range(15):
        assert clock.observe(T + 9 * HOUR, f"morning {user}")
    assert not clock.observe(T + 9 * HOUR, "morning 15")
    assert clock.watermark == T + 9 * HOUR - LATENESS


def test_a_minority_moves_nothing_however_many_agree_and_however_often() -> None:
    clock = clock_at()
    crowd(clock, 12)
    for second in range(3000):
        for bad in range(5):
            assert clock.observe(T + YEAR + second * SECOND, f"bad {bad}")
        clock.observe(T + second * SECOND, f"of the crowd {second % 12}")
    assert clock.watermark == T + 2999 * SECOND - LATENESS


def test_ten_thousand_events_of_one_user_are_one_vote() -> None:
    clock = clock_at()
    crowd(clock, 12)
    for second in range(10_000):
        assert clock.observe(T + YEAR + second * SECOND, "bot")
    assert clock.watermark == T - LATENESS


def test_each_day_of_one_user_alone_is_one_more_vote() -> None:
    """Two of three users have left: two votes are needed, its own and a day; a step counts as an hour at most."""
    clock = clock_at()
    crowd(clock, 3)
    for step in range(24):
        assert clock.observe(T + 9 * HOUR + step * 2 * HOUR, "of the crowd 0")
    assert not clock.observe(T + 9 * HOUR + 48 * HOUR, "of the crowd 0")
    assert clock.watermark == T + 57 * HOUR - LATENESS


def test_the_only_user_passes_a_night_after_an_hour() -> None:
    clock = clock_at()
    assert not clock.observe(T, "u")
    for minute in (0, 1, 59):
        assert clock.observe(T + 9 * HOUR + minute * MINUTE, "u")
    assert not clock.observe(T + 10 * HOUR, "u")
    assert clock.watermark == T + 10 * HOUR - LATENESS


def test_who_was_not_seen_for_a_week_has_no_vote() -> None:
    for days, is_ahead in ((7, True), (8, False)):
        clock = clock_at(T + days * DAY)
        clock.observe(T, "gone")
        clock.observe(T + days * DAY, "u")
        clock.observe(T + days * DAY + 9 * HOUR, "u")
        assert clock.observe(T + days * DAY + 10 * HOUR, "u") is is_ahead


# --- a new partition -----------------------------------------------------------------------------------------------


def test_a_new_partition_has_no_watermark_for_sixty_four_turns() -> None:
    clock = clock_at(None)
    for turn in range(63):
        for _ in range(3):
            assert clock.observe(T + turn * SECOND, f"u{turn % 6}")
            assert clock.watermark == MIN_WATERMARK
    assert not clock.observe(T + 63 * SECOND, "u3")
    assert clock.watermark == T + 63 * SECOND - LATENESS


def test_wrong_first_events_are_outvoted() -> None:
    clock = clock_at(None)
    for turn in range(64):
        clock.observe(T + turn * SECOND + (YEAR if turn < 30 else 0), f"u{turn % 12}")
    assert clock.watermark == T + 63 * SECOND - LATENESS


def test_one_user_settles_by_itself_after_a_day_or_16384_records() -> None:
    clock = clock_at(None)
    assert not any(clock.observe(T + hour * HOUR, "u") is False for hour in range(24))
    assert not clock.observe(T + DAY, "u")
    clock = clock_at(None)
    assert all(clock.observe(T + number, "u") for number in range(16_383))
    assert not clock.observe(T + 16_383, "u")


# --- events that are held ------------------------------------------------------------------------------------------


class Held:
    """A clock, and the events that are ahead of it."""

    def __init__(self) -> None:
        self.clock = clock_at()
        self.events = FutureEvents(DictStore(), self.clock)

    def see(self, ts: int, user_id: str) -> list[int]:
        """Process one record as the stage does; return the ts of those that expire."""
        is_ahead = self.clock.observe(ts, user_id)
        expired = [event.ts for event in self.events.pop_expired()]
        if is_ahead:
            self.events.add(0, ts, 0, b"the line")
        return expired


def test_an_event_ahead_expires_when_the_time_has_moved_on_by_one_hour() -> None:
    held = Held()
    assert held.see(T + YEAR, "bad") == []
    assert held.clock.watermark_at(held.events.next_expiry) == T - LATENESS + HOUR
    assert held.events.ahead_now() == (1, YEAR)
    assert held.see(T + HOUR - 1, "good") == []
    assert held.see(T + HOUR, "good") == [T + YEAR]
    assert len(held.events) == 0
    assert held.events.ahead_now() == (0, 0)
    assert held.clock.watermark_at(held.events.next_expiry) == MAX_WATERMARK


def test_of_the_events_that_are_held_only_those_ahead_now_are_counted() -> None:
    """Before the clock has settled all events are held, and on a healthy stream they stay so for its first hour."""
    clock = EventClock(LATENESS, HOUR)
    events = FutureEvents(DictStore(), clock)
    for number in range(200):
        if clock.observe(T + number * SECOND, f"u{number}"):
            events.add(number, T + number * SECOND, number, b"")
        assert events.ahead_now() == (0, 0)
    assert len(events) > 0
    events.add(200, T + DAY, 200, b"")
    assert events.ahead_now() == (1, DAY - 199 * SECOND)


def test_an_event_whose_time_has_come_within_reach_was_right() -> None:
    held = Held()
    for ts in (T + 61 * MINUTE, T + 2 * HOUR + 1):
        assert held.see(ts, "u") == []
    assert held.see(T + 30 * MINUTE, "v") == []
    assert held.see(T + HOUR, "v") == [T + 2 * HOUR + 1]


def test_a_move_by_vote_counts_as_a_sixty_fourth_of_an_hour() -> None:
    """Else a log with less than an event an hour would be lost. Of four users the bad one and two more are enough."""
    held = Held()
    held.see(T + YEAR, "bad")
    for night in range(1, 64):
        assert [held.see(T + night * 9 * HOUR, user) for user in "uvw"] == [[], [], []]
    assert [held.see(T + 64 * 9 * HOUR, user) for user in "uvw"] == [[], [T + YEAR], []]


# --- against the rule ----------------------------------------------------------------------------------------------


_records = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 1000), st.sampled_from("abcdefghijklmnop")).map(
        lambda drawn: (T + drawn[0] * 7 * MINUTE + drawn[1], drawn[2])
    ),
    max_size=120,
)
_logs = st.one_of(_records, st.integers(0, 1 << 30).map(lambda seed: times_of(clock_world(seed))))


@settings(max_examples=100)
@given(records=_logs, settled=st.booleans(), reopen=st.sets(st.integers(0, 300), max_size=20))
def test_agrees_with_the_rule_and_resumes_from_stored_state(
    records: list[tuple[int, str]], settled: bool, reopen: set[int]
) -> None:
    accepted = T if settled else None
    clock, rule = clock_at(accepted), Clock(accepted)
    held: list[tuple[int, int]] = []  # offset, progress at arrival
    store = DictStore()
    events = FutureEvents(store, clock)
    for offset, (ts, user) in enumerate(records):
        before = clock.watermark
        is_ahead = clock.observe(ts, user)
        assert is_ahead == rule.see(ts, user)
        assert clock.watermark == (MIN_WATERMARK if rule.accepted is None else rule.watermark)
        assert clock.watermark >= before
        if clock.watermark >= clock.watermark_at(events.next_expiry):
            expired = [event.offset for event in events.pop_expired()]
            due = [number for number, since in held if rule.progress - since >= HOUR]
            assert expired == [number for number in due if rule.is_ahead(records[number][0])]
        held = [(number, since) for number, since in held if rule.progress - since < HOUR]
        if is_ahead:
            events.add(offset, ts, offset, b"")
            held.append((offset, rule.progress))
        if offset in reopen:
            stored = msgspec.msgpack.encode(clock.state())
            store.write(events.drain_changes())
            clock = EventClock(LATENESS, HOUR, msgspec.msgpack.decode(stored, type=ClockState))
            events = FutureEvents(store, clock)
            assert len(events) == len(held)


def test_the_state_is_bounded_by_the_votes() -> None:
    clock = clock_at()
    for number in range(5000):
        clock.observe(T + number, f"u{number}")
    assert clock.state().voters == [(f"u{number}", T + number) for number in range(5000 - 64, 5000)]
