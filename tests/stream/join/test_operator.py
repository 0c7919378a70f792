"""Stage `sessions` by hand: click outcomes, pages, snapshots as of the page's time, clocks that jump."""

import json

import msgspec
import pytest

from prectr.stream.config import PipelineConfig
from prectr.stream.join.user_state import UserEntry
from prectr.stream.records import Activity, QueryClick, decode_history, decode_page
from tests.kit.stages.events import DAY, HOUR, LATENESS, MINUTE, SECOND, WINDOW, T, click, page
from tests.kit.stages.join_driver import SessionsDriver, all_at_once, clicks_of, history_of, later, pages_of, run, world

# --- every outcome of a click, by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ([page("r", "u", T), click("r", "u", T)], {"joined": 1}),
        ([page("r", "u", T), click("r", "u", T + WINDOW)], {"joined": 1}),
        ([page("r", "u", T), click("r", "u", T + WINDOW + 1)], {"late": 1}),
        ([page("r", "u", T), click("r", "u", T - DAY)], {"joined": 1}),
        ([page("r", "u", T), click("r", "u", T, "zzz")], {"foreign": 1}),
        ([page("r", "u", T), click("r", "u", T + WINDOW + 1, "zzz")], {"foreign": 1}),
        ([page("r", "u", T), click("r", "u", T), click("r", "u", T + 1)], {"joined": 1, "duplicate": 1}),
        ([page("r", "u", T), click("r", "u", T), click("r", "u", T, "b")], {"joined": 2}),
        ([page("r", "u", T), click("r", "u", T), click("r", "u", T + WINDOW + 1)], {"joined": 1, "duplicate": 1}),
        ([click("r", "u", T)], {"waiting": 1}),
        ([click("r", "u", T + 9), page("r", "u", T)], {"joined": 1}),
        ([click("r", "u", T + 9), page("r", "v", T)], {"waiting": 1}),
        ([click("r", "u", T, "zzz"), page("r", "u", T)], {"foreign": 1}),
        ([click("r", "u", T), click("r", "u", T + 1), page("r", "u", T)], {"joined": 1, "duplicate": 1}),
        ([click("r", "u", T + WINDOW + 1), page("r", "u", T)], {"late": 1}),
        ([page("r", "u", T), click("r", "other user", T)], {"waiting": 1}),
    ],
)
def test_a_click_ends_as_design_says(lines: list[bytes], outcome: dict[str, int]) -> None:
    assert clicks_of(run(*lines)) == outcome


def test_a_click_on_a_page_that_has_closed_is_late() -> None:
    before, after = later(T + WINDOW - 1), later(T + WINDOW)
    assert clicks_of(run(page("r", "u", T), before, click("r", "u", T))) == {"joined": 1, "waiting": 1}
    assert clicks_of(run(page("r", "u", T), after, click("r", "u", T))) == {"late": 1, "waiting": 1}


def test_a_closed_id_is_remembered_for_an_hour_after_its_effective_close() -> None:
    first, close = page("r", "u", T), T + WINDOW
    reminder = [first, later(close), later(close + HOUR - 1)]
    assert clicks_of(run(*reminder, click("r", "u", close + HOUR)))["late"] == 1
    assert "late" not in clicks_of(run(*reminder, later(close + HOUR), click("r", "u", close + HOUR)))
    again = run(*reminder, first)
    assert (again.outcomes.impressions.duplicate, again.outcomes.impressions.open) == (1, 0)
    forgotten = run(*reminder, later(close + HOUR), first)
    assert (forgotten.outcomes.impressions.duplicate, forgotten.outcomes.impressions.open) == (0, 1)


def test_a_page_whose_forgotten_id_comes_again_is_remembered_anew() -> None:
    first, close = page("r", "u", T), T + WINDOW
    second = page("r", "u", close + HOUR, items=("c", "d"))
    lines = [first, later(close), later(close + HOUR), second, later(close + HOUR + WINDOW), second]
    driver = run(*lines)
    assert driver.outcomes.impressions.duplicate == 1
    assert len(driver.activities) == 2


def test_a_waiting_click_is_orphan_when_the_watermark_reaches_its_time_and_window() -> None:
    assert clicks_of(run(click("r", "u", T), later(T + WINDOW - 1))) == {"waiting": 2}
    assert clicks_of(run(click("r", "u", T), later(T + WINDOW))) == {"orphan": 1, "waiting": 1}


def test_a_click_that_comes_after_that_is_orphan_at_once() -> None:
    assert clicks_of(run(later(T + WINDOW), click("r", "u", T))) == {"orphan": 1, "waiting": 1}
    assert clicks_of(run(later(T + WINDOW), click("r", "u", T + 1))) == {"waiting": 2}


def test_another_users_click_is_orphan_and_labels_nothing() -> None:
    driver = run(page("r", "u", T), click("r", "v", T + 1), flush=True)
    assert clicks_of(driver) == {"orphan": 1}
    assert driver.activities[0].labels == b"\0\0"


def test_two_users_may_use_one_request_id() -> None:
    driver = run(page("r", "u", T), page("r", "v", T), click("r", "v", T + 1, "b"), flush=True)
    assert [(found.user_id, found.labels) for found in driver.activities] == [("u", b"\0\0"), ("v", b"\0\1")]


def test_waiting_clicks_are_judged_in_the_order_they_came() -> None:
    driver = run(click("r", "u", T + 8), click("r", "u", T + 3), page("r", "u", T), flush=True)
    assert clicks_of(driver) == {"joined": 1, "duplicate": 1}
    (activity,) = driver.activities
    assert query_clicks(activity) == [(T + 8, "a", 4)]


def test_the_first_of_equal_items_takes_the_click() -> None:
    driver = run(page("r", "u", T, items=("a", "b", "b")), click("r", "u", T, "b"), click("r", "u", T, "b"), flush=True)
    assert clicks_of(driver) == {"joined": 1, "duplicate": 1}
    assert driver.activities[0].labels == b"\0\1\0"


# --- pages ---------------------------------------------------------------------------------------------------------


def test_a_page_with_equal_known_fields_is_a_duplicate_else_a_dead_letter() -> None:
    first = page("r", "u", T, context={"device": "phone", "country": "de"})
    reordered = page("r", "u", T, unknown="field", context={"country": "de", "device": "phone"})
    other = page("r", "u", T, items=("a", "c"), context={"device": "phone", "country": "de"})
    assert pages_of(run(first, reordered)) == {"open": 1, "duplicate": 1}
    driver = run(first, other)
    assert pages_of(driver) == {"open": 1, "dead_letter": 1}
    (refused,) = driver.refused
    assert (refused.value, refused.place, refused.reason) == (other, 1, "conflicting_page")


@pytest.mark.parametrize("closed", [False, True])
def test_a_filled_in_level_makes_no_other_page_of_it(closed: bool) -> None:
    """A duplicate of a page whose levels were filled in is still one, while it is open and when it has closed."""
    bare = page("r", "u", T, levels=(None, None))
    driver = run(bare, *([later(T + WINDOW)] if closed else []), bare)
    assert driver.outcomes.impressions.duplicate == 1
    assert driver.refused == []


def test_missing_levels_are_filled_in_on_entry_and_given_ones_are_kept() -> None:
    items = ("a", "b", "c")
    driver = run(page("r", "u", T, query="title of a", items=items, levels=(None, 2, None)), flush=True)
    (activity,) = driver.activities
    assert activity.levels == bytes((4, 2, 3))
    assert [item.relevance for item in decode_page(activity.page).items] == [4, 2, 3]
    assert [item.position for item in decode_page(activity.page).items] == [1, 2, 3]
    assert activity.counts == (0, 1, 1, 1, 0, 0, 0, 0)


def test_a_page_closes_when_the_watermark_reaches_its_time_and_window() -> None:
    assert run(page("r", "u", T), later(T + WINDOW - 1)).activities == []
    (activity,) = run(page("r", "u", T), later(T + WINDOW)).activities
    assert activity.closes_at == T + WINDOW


def test_a_page_that_comes_late_closes_one_millisecond_after_the_watermark_it_met() -> None:
    driver = run(later(T + DAY), page("r", "u", T), click("r", "u", T + 1), later(T + DAY + 1))
    (activity,) = driver.activities
    assert activity.closes_at == T + DAY + 1
    assert activity.labels == b"\1\0"


def test_pages_leave_in_the_order_of_close_request_and_user() -> None:
    lines = [
        page("b", "u", T),
        page("a", "v", T),
        page("a", "u", T),
        page("é", "u", T),
        page("z", "u", T - 1),
        page("😀", "u", T),
        page("\uffff", "u", T),
    ]
    driver = run(*lines, later(T + WINDOW))
    found = [(activity.closes_at, activity.request_id, activity.user_id) for activity in driver.activities]
    assert found == sorted(found, key=lambda key: (key[0], key[1].encode(), key[2].encode()))
    assert len(found) == len(lines)


def test_no_page_leaves_behind_the_watermark_that_was_told() -> None:
    driver = SessionsDriver()
    lines = world(3)
    passed = -1
    while driver.task.position < len(lines):
        before = len(driver.activities)
        driver.run(lines[: driver.task.position + 5], all_at_once())
        assert all(passed < activity.closes_at <= driver.task.watermark for activity in driver.activities[before:])
        passed = driver.task.watermark


# --- the snapshot as of the page's time ----------------------------------------------------------------------------


def query_clicks(activity: Activity) -> list[tuple[int, str, int]]:
    decode = msgspec.msgpack.Decoder(QueryClick).decode
    return [(found.ts, found.item_id, found.level) for found in map(decode, activity.clicked)]


def test_a_page_sees_clicks_of_a_smaller_time_in_whatever_order_they_came() -> None:
    lines = [
        page("r1", "u", T),
        page("r2", "u", T + MINUTE),
        click("r2", "u", T + MINUTE + 1),
        click("r1", "u", T + MINUTE, "b"),
        click("r1", "u", T + MINUTE - 1, "a"),
    ]
    first, second = run(*lines, flush=True).activities
    assert (first.user_activity, history_of(first)) == (0, [])
    assert (second.user_activity, history_of(second)) == (1, [(T + MINUTE - 1, "r1", "a")])
    assert query_clicks(first) == [(T + MINUTE - 1, "a", 4), (T + MINUTE, "b", 1)]


def test_a_history_entry_says_what_was_clicked() -> None:
    items = [
        {"item_id": "x", "title": "A cable", "relevance": 3, "price": 9.5, "category": "cables", "brand": "Acme"},
        {"item_id": "y", "relevance": 1},
    ]
    event = json.loads(page("r1", "u", T, query="USB  Cable")) | {"items": items}
    lines = [json.dumps(event).encode(), click("r1", "u", T + 1, "x"), click("r1", "u", T + 2, "y")]
    _, second = run(*lines, page("r2", "u", T + SECOND), flush=True).activities
    x, y = decode_history(second.history)
    assert (x.query, x.title, x.level, x.category, x.brand, x.price) == (
        "usb cable",
        "A cable",
        3,
        "cables",
        "Acme",
        9.5,
    )
    assert (y.query, y.title, y.level, y.category, y.brand, y.price) == ("usb cable", None, 1, None, None, None)


def test_a_page_sees_the_users_pages_whose_effective_close_is_not_after_its_time() -> None:
    lines = [
        page("r1", "u", T, items=("a", "b", "c")),
        click("r1", "u", T + 1, "a"),
        later(T),
        page("r2", "u", T + WINDOW - 1),
        page("r3", "u", T + WINDOW),
    ]
    _, second, third = run(*lines, flush=True).activities
    assert second.user_stats == (0, 0, 0, 0, 0, 0, 0, 0)
    assert third.user_stats == (2, 0, 0, 1, 0, 0, 0, 1)


def test_the_last_fifty_clicks_are_shown_and_all_are_counted() -> None:
    items = [f"i{number}" for number in range(70)]
    lines = [page("r1", "u", T, items=items)]
    lines += [click("r1", "u", T + number, items[number]) for number in range(70)]
    lines += [later(T + WINDOW), page("r2", "u", T + WINDOW), later(T + 3 * WINDOW), page("r3", "u", T + 3 * WINDOW)]
    first, second, third = run(*lines, flush=True).activities
    assert (first.user_activity, second.user_activity, third.user_activity) == (0, 70, 70)
    expected = [(T + number, "r1", f"i{number}") for number in range(20, 70)]
    assert history_of(second) == history_of(third) == expected


def test_clicks_since_the_oldest_open_page_are_kept_whatever_their_number() -> None:
    """The page that is still open sees its own past exactly, although 150 clicks came after it."""
    items = [f"i{number}" for number in range(75)]
    lines = [
        page("r0", "u", T, items=items),
        *(click("r0", "u", T + 1 + number, items[number]) for number in range(60)),
    ]
    lines.append(page("r1", "u", T + SECOND, items=items))
    for name in ("r2", "r3"):
        lines.append(page(name, "u", T + 2 * SECOND, items=items))
        lines += [click(name, "u", T + 2 * SECOND + number, item) for number, item in enumerate(items)]
    second = run(*lines, flush=True).activities[1]
    assert second.request_id == "r1"
    assert second.user_activity == 60
    assert history_of(second) == [(T + 1 + number, "r0", items[number]) for number in range(10, 60)]


def test_a_user_is_forgotten_after_the_time_to_live_and_not_before() -> None:
    config = PipelineConfig(user_ttl=DAY / 1000)
    for gap, expected in ((DAY, (1, (1, 0, 0, 1, 0, 0, 0, 1))), (DAY + 1, (0, (0,) * 8))):
        last_update = T + 1
        step = [later(last_update + number * HOUR, f"v{number}") for number in range(25)]
        lines = [page("r1", "u", T), click("r1", "u", last_update), *step, page("r2", "u", last_update + gap)]
        second = run(*lines, config=config, flush=True).activities[-1]
        assert (second.user_activity, second.user_stats) == expected


def test_a_click_from_a_clock_that_jumped_makes_nobody_forgotten() -> None:
    """A year ahead, on a page a year ahead: nobody has confirmed that a year has passed."""
    future = T + 365 * DAY
    lines = [page("r1", "u", T), click("r1", "u", T + 1), later(T + WINDOW)]
    lines += [page("bad", "u", future), click("bad", "u", future + 1), page("r2", "u", T + WINDOW), later(T + HOUR)]
    second = run(*lines).activities[-1]
    assert (second.request_id, second.user_activity) == ("r2", 1)
    assert second.user_stats == (1, 0, 0, 1, 0, 0, 0, 1)


# --- clocks that jump ----------------------------------------------------------------------------------------------


def test_a_page_from_the_future_is_given_up_with_its_bytes_and_place() -> None:
    bad = page("bad", "u", T + 365 * DAY)
    lines = [page("r", "u", T), bad, click("bad", "u", T + 365 * DAY)]
    driver = run(*lines, later(T + HOUR - LATENESS - 1))
    assert pages_of(driver) == {"open": 1, "emitted": 1}
    driver = run(*lines, later(T + HOUR - LATENESS))
    assert pages_of(driver) == {"emitted": 1, "dead_letter": 1}
    (refused,) = driver.refused
    assert (refused.value, refused.place, refused.reason) == (bad, 1, "unconfirmed_clock")
    assert f"event time {T + 365 * DAY}" in refused.detail


def test_a_suspect_is_given_up_at_its_hour_although_nothing_else_is_due() -> None:
    close = T + WINDOW
    lines = [page("r", "u", T), click("r", "u", close + LATENESS), page("bad", "u", T + 365 * DAY)]
    assert pages_of(run(*lines, click("r", "u", close + LATENESS + HOUR - 1))) == {"emitted": 1, "open": 1}
    assert pages_of(run(*lines, click("r", "u", close + LATENESS + HOUR))) == {"emitted": 1, "dead_letter": 1}


def test_clicks_of_a_given_up_page_are_folded_as_any_others() -> None:
    items = [f"i{number}" for number in range(75)]
    future = T + 365 * DAY
    lines = [page("bad", "bad", future, items=items), *(click("bad", "bad", future + 1, item) for item in items)]
    driver = run(later(T), *lines, later(T + HOUR))
    assert driver.outcomes.impressions.dead_letter == 1
    entry = msgspec.msgpack.decode(driver.store.entries[b"ubad"], type=UserEntry)
    assert (len(entry.clicks), entry.folded) == (50, 25)


def test_a_waiting_click_from_the_future_is_given_up_with_its_bytes_and_place() -> None:
    bad = click("bad", "u", T + 365 * DAY)
    driver = run(page("r", "u", T), bad, later(T + HOUR - LATENESS))
    assert clicks_of(driver) == {"waiting": 1, "dead_letter": 1}
    (refused,) = driver.refused
    assert (refused.value, refused.place, refused.reason) == (bad, 1, "unconfirmed_clock")


def test_a_click_from_the_future_that_found_its_page_is_late_and_no_dead_letter() -> None:
    driver = run(page("r", "u", T), click("r", "u", T + DAY), later(T + 2 * HOUR), later(T + 2 * HOUR, "w"))
    assert clicks_of(driver)["late"] == 1
    assert driver.refused == []


def test_a_quiet_night_passes_when_two_users_are_back() -> None:
    lines = [page("r1", "u", T), page("r2", "v", T + 8 * HOUR), page("r3", "w", T + 8 * HOUR + 1)]
    driver = run(*lines)
    assert [found.request_id for found in driver.activities] == ["r1"]
    assert pages_of(driver) == {"emitted": 1, "open": 2}
