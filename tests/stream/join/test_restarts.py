"""Stage `join`: batch boundaries, crashes, the oracle, and bounds of memory and store."""

from collections import Counter
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.stream.join.event_clock import MAX_WATERMARK
from prectr.stream.join.operator import Join
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.join.user_state import StoredUser
from testkit.oracle.oracle import expected_replay
from tests.kit.stages.events import DAY, HOUR, LATENESS, MINUTE, SECOND, WINDOW, T, click, page
from tests.kit.stages.join_driver import (
    DISORDER,
    CrashPoint,
    JoinDriver,
    advance_watermark,
    all_at_once,
    clicks_of,
    encoded,
    history_of,
    one_by_one,
    pages_of,
    random_sizes,
    run,
    settled_store,
    world,
)
from tests.kit.stages.store import DictStore
from tests.oracle.world import make_world

pytestmark = pytest.mark.usefixtures("implementation")

# --- micro-batches and crashes -------------------------------------------------------------------------------------


Result = tuple[list[bytes], list[bytes], Outcomes, dict[bytes, bytes]]


def result(driver: JoinDriver) -> Result:
    return encoded(driver.joined_pages), encoded(driver.dead_letters), driver.outcomes, driver.store.entries


@cache
def uninterrupted(seed: int, flush: bool) -> Result:
    return result(run(*world(seed), flush=flush, settled_at=None))


@settings(max_examples=25)
@given(seed=st.integers(0, 9), sizes=st.integers(0, 1 << 30), flush=st.booleans())
def test_results_do_not_depend_on_how_records_are_split_into_micro_batches(seed: int, sizes: int, flush: bool) -> None:
    """Outputs, rejected records, counts and the store itself, bit for bit."""
    driver = JoinDriver()
    driver.run(world(seed), random_sizes(sizes, 40))
    if flush:
        driver.flush()
    expected = uninterrupted(seed, flush)
    found = result(driver)
    assert found[:3] == expected[:3]
    assert _without_closed(found[3]) == _without_closed(expected[3])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_crash_at_any_record_changes_nothing(seed: int) -> None:
    lines = world(seed)
    expected = uninterrupted(seed, True)
    for point in CrashPoint:
        driver = JoinDriver()
        driver.run(lines, one_by_one(), dict.fromkeys(range(1, len(lines) + 1), point))
        driver.flush()
        found = result(driver)
        assert found[:3] == expected[:3]
        assert _without_closed(found[3]) == _without_closed(expected[3])


@settings(max_examples=25)
@given(
    seed=st.integers(0, 9),
    sizes=st.integers(0, 1 << 30),
    crashes=st.dictionaries(st.integers(1, 200), st.sampled_from(CrashPoint), max_size=12),
)
def test_crashes_between_random_micro_batches_change_nothing(
    seed: int, sizes: int, crashes: dict[int, CrashPoint]
) -> None:
    """The batches after a crash have other boundaries than those before it."""
    driver = JoinDriver()
    driver.run(world(seed), random_sizes(sizes), crashes)
    driver.flush()
    assert result(driver)[:3] == uninterrupted(seed, True)[:3]


def _without_closed(entries: dict[bytes, bytes]) -> dict[bytes, object]:
    """User entries without the closed ids: an expired id is dropped with the next write of its user."""
    decoded = {key: msgspec.msgpack.decode(value) for key, value in entries.items()}
    return {key: value[:-1] if key.startswith(b"u") else value for key, value in decoded.items()}


@settings(max_examples=15)
@given(seed=st.integers(0, 1 << 30), sizes=st.integers(0, 1 << 30), flush=st.booleans())
def test_agrees_with_the_brute_force_oracle(seed: int, sizes: int, flush: bool) -> None:
    lines = make_world(seed, DISORDER)
    driver = JoinDriver()
    driver.run(lines, random_sizes(sizes, 60))
    if flush:
        driver.flush()
    expected = expected_replay(lines, 1, flush=flush, snapshots=True)
    assert len(driver.joined_pages) == len(expected["examples"])
    for activity, example, snapshot in zip(
        driver.joined_pages, expected["examples"], expected["snapshots"], strict=True
    ):
        assert (activity.request_id, activity.user_id) == (example["request_id"], example["user_id"])
        assert list(activity.labels) == [item["click"] for item in example["items"]]
        assert activity.user_activity == example["user_activity"]
        assert history_of(activity) == [tuple(entry) for entry in snapshot["history"]]
        levels = example["user_stats"].values()
        assert list(activity.user_stats) == [shown for shown, _ in levels] + [clicked for _, clicked in levels]
    assert Counter(rejected.value for rejected in driver.dead_letters) == Counter(expected["dead"])


@pytest.mark.parametrize("seed", range(4))
def test_every_record_is_accounted_for_at_any_time(seed: int) -> None:
    driver = JoinDriver()
    lines = world(seed)
    for end in range(1, len(lines) + 1):
        driver.run(lines[:end], one_by_one())
        assert driver.outcomes.imbalances() == []
        assert driver.outcomes.records == end
        assert driver.outcomes.pages.emitted == len(driver.joined_pages)
        counts = driver.outcomes
        dead = counts.pages.dead_letter + counts.clicks.dead_letter + counts.unreadable
        assert dead == len(driver.dead_letters)


# --- bounds --------------------------------------------------------------------------------------------------------


def resident(driver: JoinDriver) -> dict[str, int]:
    """Sizes of everything that the task keeps in memory, by owner and attribute; without what is empty."""
    task = driver.task
    if not isinstance(task, Join):
        names = ("users", "pages", "clicks", "future_events")
        sizes = dict(zip(names, task.resident, strict=True))  # type: ignore[attr-defined]
        return {name: size for name, size in sizes.items() if size}
    owners = (task, task._users, task._pending_pages, task._pending_clicks)
    sizes = {
        f"{type(owner).__name__}.{name}": len(value)
        for owner in owners
        for name in (vars(owner) if owner is task else owner.__slots__)
        if isinstance(value := getattr(owner, name), dict | list | set)
    }
    sizes["future_events"] = len(task._future_events)
    return {name: size for name, size in sizes.items() if size}


@pytest.mark.parametrize("seed", range(4))
def test_nothing_stays_in_memory_or_under_pages_in_the_store_when_all_is_closed(seed: int) -> None:
    driver = JoinDriver()
    driver.run(world(seed), random_sizes(seed))
    assert resident(driver)
    driver.flush()
    assert resident(driver) == {}
    assert driver.store.keys(b"p") == driver.store.keys(b"w") == []
    assert {key[:1] for key in driver.store.entries} == {b"m", b"u"}


def test_memory_is_bounded_by_the_window_not_by_the_length_of_the_log() -> None:
    driver = JoinDriver(store=settled_store(T))
    most: list[int] = []
    lines = []
    for number in range(1500):
        ts = T + number * 10 * SECOND
        lines += [page(f"r{number}", f"u{number}", ts), click(f"r{number}", f"u{number}", ts + SECOND)]
        lines += [click(f"unknown{number}", f"v{number}", ts)]
    for end in range(300, len(lines) + 1, 300):
        driver.run(lines[:end], all_at_once())
        most.append(max(resident(driver).values()))
    # ten seconds apart, 13 pages and 13 pending clicks are within window and lateness of one another
    assert max(most) <= 2 * 13
    assert len(driver.store.keys(b"p")) <= 13
    assert len(driver.store.keys(b"w")) <= 13


def test_expired_future_events_leave_no_state() -> None:
    """A bad clock closes no page and leaves no state, by pages or by clicks."""
    driver = JoinDriver(store=settled_store(T))
    lines = [page("r", "u", T)]
    for number in range(50):
        lines.append(page(f"bad{number}", "bad", T + DAY * (400 - number)))
        lines.append(click(f"unknown{number}", "bad", T + DAY * (800 - number)))
    lines += [advance_watermark(T + HOUR - LATENESS), advance_watermark(T + HOUR), page("r2", "u", T + HOUR + LATENESS)]
    lines.append(click("none", "w", T + 2 * HOUR))
    driver.run(lines, random_sizes(5))
    assert pages_of(driver) == {"emitted": 2, "dead_letter": 50}
    assert clicks_of(driver) == {"orphan": 2, "waiting": 1, "dead_letter": 50}
    assert driver.store.keys(b"p") == []
    assert len(driver.store.keys(b"w")) == 1
    assert {name: size for name, size in resident(driver).items() if size > 1} == {}


def test_closed_ids_leave_a_users_entry_with_the_next_write_after_an_hour() -> None:
    driver = JoinDriver(store=settled_store(T))
    lines = [page(f"r{number}", "u", T + number * 10 * MINUTE) for number in range(100)]
    driver.run(lines, one_by_one())
    entry = msgspec.msgpack.decode(driver.store.entries[b"uu"], type=StoredUser)
    assert len(entry.closed_pages) <= 7  # ten minutes apart, kept for an hour


def test_an_id_that_recurs_does_not_keep_others_from_expiring() -> None:
    lines = []
    for number in range(60):
        ts = T + number * 65 * MINUTE
        lines += [
            advance_watermark(ts, "v"),
            advance_watermark(ts, "w"),
            page("again", "u", ts),
            page(f"r{number}", "u", ts),
        ]
    lines.append(advance_watermark(ts + WINDOW))
    driver = JoinDriver(store=settled_store(T))
    driver.run(lines, all_at_once())
    assert driver.outcomes.pages.emitted == 120
    assert len(msgspec.msgpack.decode(driver.store.entries[b"uu"], type=StoredUser).closed_pages) == 2


def test_a_task_over_an_empty_store_has_seen_nothing() -> None:
    driver = JoinDriver(store=DictStore())
    assert driver.task.next_offset == 0
    assert driver.outcomes == Outcomes()
    assert driver.task.watermark < 0 < MAX_WATERMARK
