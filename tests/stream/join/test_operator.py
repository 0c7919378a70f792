"""Stage `join` by hand: click outcomes, pages, user state as of the page's time, future timestamps."""

import json

import msgspec
import pytest

from prectr.stream.config import PipelineConfig
from prectr.stream.join.user_state import StoredUser
from prectr.stream.records import JoinedPage, QueryClick, decode_history, decode_page
from tests.kit.stages.events import DAY, HOUR, LATENESS, MINUTE, SECOND, WINDOW, T, click, page
from tests.kit.stages.join_driver import (
    JoinDriver,
    advance_watermark,
    all_at_once,
    clicks_of,
    history_of,
    pages_of,
    run,
    world,
)

pytestmark = pytest.mark.usefixtures("implementation")

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
def test_a_click_has_the_documented_outcome(lines: list[bytes], outcome: dict[str, int]) -> None:
    assert clicks_of(run(*lines)) == outcome


def test_a_click_on_a_page_that_has_closed_is_late() -> None:
    before, after = advance_watermark(T + WINDOW - 1), advance_watermark(T + WINDOW)
    assert clicks_of(run(page("r", "u", T), before, click("r", "u", T))) == {"joined": 1, "waiting": 1}
    assert clicks_of(run(page("r", "u", T), after, click("r", "u", T))) == {"late": 1, "waiting": 1}


def test_a_closed_id_is_remembered_for_an_hour_after_its_effective_close() -> None:
    first, close = page("r", "u", T), T + WINDOW
    reminder = [first, advance_watermark(close), advance_watermark(close + HOUR - 1)]
    assert clicks_of(run(*reminder, click("r", "u", close + HOUR)))["late"] == 1
    assert "late" not in clicks_of(run(*reminder, advance_watermark(close + HOUR), click("r", "u", close + HOUR)))
    again = run(*reminder, first)
    assert (again.outcomes.pages.duplicate, again.outcomes.pages.open) == (1, 0)
    forgotten = run(*reminder, advance_watermark(close + HOUR), first)
    assert (forgotten.outcomes.pages.duplicate, forgotten.outcomes.pages.open) == (0, 1)


def test_a_page_whose_evicted_id_recurs_is_a_new_page() -> None:
    first, close = page("r", "u", T), T + WINDOW
    second = page("r", "u", close + HOUR, items=("c", "d"))
    lines = [
        first,
        advance_watermark(close),
        advance_watermark(close + HOUR),
        second,
        advance_watermark(close + HOUR + WINDOW),
        second,
    ]
    driver = run(*lines)
    assert driver.outcomes.pages.duplicate == 1
    assert len(driver.joined_pages) == 2


def test_a_waiting_click_is_orphan_when_the_watermark_reaches_its_time_and_window() -> None:
    assert clicks_of(run(click("r", "u", T), advance_watermark(T + WINDOW - 1))) == {"waiting": 2}
    assert clicks_of(run(click("r", "u", T), advance_watermark(T + WINDOW))) == {"orphan": 1, "waiting": 1}


def test_a_click_after_that_is_immediately_an_orphan() -> None:
    assert clicks_of(run(advance_watermark(T + WINDOW), click("r", "u", T))) == {"orphan": 1, "waiting": 1}
    assert clicks_of(run(advance_watermark(T + WINDOW), click("r", "u", T + 1))) == {"waiting": 2}


def test_another_users_click_is_orphan_and_labels_nothing() -> None:
    driver = run(page("r", "u", T), click("r", "v", T + 1), flush=True)
    assert clicks_of(driver) == {"orphan": 1}
    assert driver.joined_pages[0].labels == b"\0\0"


def test_two_users_may_use_one_request_id() -> None:
    driver = run(page("r", "u", T), page("r", "v", T), click("r", "v", T + 1, "b"), flush=True)
    assert [(found.user_id, found.labels) for found in driver.joined_pages] == [("u", b"\0\0"), ("v", b"\0\1")]


def test_waiting_clicks_are_judged_in_the_order_they_came() -> None:
    driver = run(click("r", "u", T + 8), click("r", "u", T + 3), page("r", "u", T), flush=True)
    assert clicks_of(driver) == {"joined": 1, "duplicate": 1}
    (activity,) = driver.joined_pages
    assert query_clicks_of(activity) == [(T + 8, "a", 4)]


def test_the_first_of_equal_items_takes_the_click() -> None:
    driver = run(page("r", "u", T, items=("a", "b", "b")), click("r", "u", T, "b"), click("r", "u", T, "b"), flush=True)
    assert clicks_of(driver) == {"joined": 1, "duplicate": 1}
    assert driver.joined_pages[0].labels == b"\0\1\0"


# --- pages ---------------------------------------------------------------------------------------------------------


def test_a_page_with_equal_known_fields_is_a_duplicate_else_a_dead_letter() -> None:
    first = page("r", "u", T, context={"device": "phone", "country": "de"})
    reordered = page("r", "u", T, unknown="field", context={"country": "de", "device": "phone"})
    other = page("r", "u", T, items=("a", "c"), context={"device": "phone", "country": "de"})
    assert pages_of(run(first, reordered)) == {"open": 1, "duplicate": 1}
    driver = run(first, other)
    assert pages_of(driver) == {"open": 1, "dead_letter": 1}
    (rejected,) = driver.dead_letters
    assert (rejected.value, rejected.offset, rejected.reason) == (other, 1, "conflicting_page")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (page("r", "u", T + 1), "ts"),
        (page("r", "u", T, query="usb cables"), "query"),
        (page("r", "u", T, features={"hour": 1}), "features"),
        (page("r", "u", T, levels=(3, 1)), "items[0].relevance"),
        (page("r", "u", T, items=("a", "b", "c")), "the number of items (2, now 3)"),
        (page("r", "u", T + 1, items=("a", "x")), "ts, items[1].item_id, items[1].title"),
    ],
)
def test_the_dead_letter_of_a_resent_page_names_the_fields_that_differ(other: bytes, named: str) -> None:
    (rejected,) = run(page("r", "u", T), other).dead_letters
    assert rejected.reason == "conflicting_page"
    assert f"with another value of {named}; usually a tracker" in rejected.detail


def test_a_level_that_was_filled_in_is_no_difference() -> None:
    bare, resent = (page("r", "u", ts, levels=(None, None)) for ts in (T, T + 1))
    (rejected,) = run(bare, resent).dead_letters
    assert "with another value of ts; usually" in rejected.detail


def test_the_dead_letter_of_a_page_resent_after_its_close_says_so() -> None:
    driver = run(page("r", "u", T), advance_watermark(T + WINDOW), page("r", "u", T + 1))
    (rejected,) = driver.dead_letters
    assert rejected.reason == "conflicting_page"
    assert "has closed" in rejected.detail


def test_features_are_content_in_any_order_and_stay_with_the_page() -> None:
    first = page("r", "u", T, features={"a": 1, "b": "x"}, context={"c": "d", "a": "b"})
    reordered = page("r", "u", T, features={"b": "x", "a": 1.0}, context={"a": "b", "c": "d"})
    other = page("r", "u", T, features={"a": 2, "b": "x"}, context={"c": "d", "a": "b"})
    assert pages_of(run(first, reordered)) == {"open": 1, "duplicate": 1}
    assert pages_of(run(first, other)) == {"open": 1, "dead_letter": 1}
    (joined,) = run(first, flush=True).joined_pages
    read = decode_page(joined.page)
    assert (read.features, read.context) == ({"a": 1.0, "b": "x"}, {"a": "b", "c": "d"})


def test_a_page_without_features_has_the_bytes_that_it_always_had() -> None:
    (joined,) = run(page("r", "u", T, items=("a",)), flush=True).joined_pages
    assert bytes(joined.page) == msgspec.msgpack.encode(
        {
            "type": "impression",
            "request_id": "r",
            "user_id": "u",
            "query": "usb cable",
            "ts": T,
            "items": [{"item_id": "a", "title": "title of a", "relevance": 4, "position": 1}],
        }
    )


def test_an_empty_page_is_counted_and_advances_the_clock_and_no_more() -> None:
    empty = page("r", "u", T + WINDOW + LATENESS, items=(), levels=())
    driver = run(page("q", "u", T), empty, empty, click("r", "u", T + WINDOW + LATENESS))
    assert pages_of(driver) == {"emitted": 1, "empty": 2}
    assert clicks_of(driver) == {"waiting": 1}
    assert driver.dead_letters == []


def test_another_action_is_counted_and_advances_the_clock_and_no_more() -> None:
    def acted(action: str, ts: int) -> bytes:
        return json.dumps(json.loads(click("r", "u", ts)) | {"action": action}).encode()

    log = [page("r", "u", T), acted("add_to_cart", T + 1), click("r", "u", T + 2, "b"), acted("purchase", T + WINDOW)]
    driver = run(*log)
    assert clicks_of(driver) == {"joined": 1, "other_action": 2}
    assert driver.task.watermark == T + WINDOW - LATENESS
    buyers = run(*log, config=PipelineConfig(click_actions=("purchase", "add_to_cart")))
    assert clicks_of(buyers) == {"joined": 1, "duplicate": 1, "other_action": 1}


@pytest.mark.parametrize("closed", [False, True])
def test_a_filled_in_level_makes_no_other_page_of_it(closed: bool) -> None:
    """A duplicate of a page whose levels were filled in is recognised while it is pending and after it has closed."""
    bare = page("r", "u", T, levels=(None, None))
    driver = run(bare, *([advance_watermark(T + WINDOW)] if closed else []), bare)
    assert driver.outcomes.pages.duplicate == 1
    assert driver.dead_letters == []


def test_missing_levels_are_filled_in_on_entry_and_given_ones_are_kept() -> None:
    items = ("a", "b", "c")
    driver = run(page("r", "u", T, query="title of a", items=items, levels=(None, 2, None)), flush=True)
    (activity,) = driver.joined_pages
    assert activity.levels == bytes((4, 2, 3))
    assert [item.relevance for item in decode_page(activity.page).items] == [4, 2, 3]
    assert [item.position for item in decode_page(activity.page).items] == [1, 2, 3]
    assert activity.counts == (0, 1, 1, 1, 0, 0, 0, 0)


def test_a_page_closes_when_the_watermark_reaches_its_time_and_window() -> None:
    assert run(page("r", "u", T), advance_watermark(T + WINDOW - 1)).joined_pages == []
    (activity,) = run(page("r", "u", T), advance_watermark(T + WINDOW)).joined_pages
    assert activity.closes_at == T + WINDOW


def test_a_late_page_closes_one_millisecond_after_the_watermark_at_its_arrival() -> None:
    lines = (advance_watermark(T + DAY), page("r", "u", T), click("r", "u", T + 1), advance_watermark(T + DAY + 1))
    driver = run(*lines, settled_at=T + DAY)
    (activity,) = driver.joined_pages
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
    driver = run(*lines, advance_watermark(T + WINDOW))
    found = [(activity.closes_at, activity.request_id, activity.user_id) for activity in driver.joined_pages]
    assert found == sorted(found, key=lambda key: (key[0], key[1].encode(), key[2].encode()))
    assert len(found) == len(lines)


def test_no_page_is_emitted_behind_the_reported_watermark() -> None:
    driver = JoinDriver()
    lines = world(3)
    passed = -1
    while driver.task.next_offset < len(lines):
        before = len(driver.joined_pages)
        driver.run(lines[: driver.task.next_offset + 5], all_at_once())
        assert all(passed < activity.closes_at <= driver.task.watermark for activity in driver.joined_pages[before:])
        passed = driver.task.watermark


# --- the snapshot as of the page's time ----------------------------------------------------------------------------


def query_clicks_of(activity: JoinedPage) -> list[tuple[int, str, int]]:
    decode = msgspec.msgpack.Decoder(QueryClick).decode
    return [(found.ts, found.item_id, found.level) for found in map(decode, activity.clicks)]


def test_a_page_sees_clicks_of_a_smaller_time_in_whatever_order_they_came() -> None:
    lines = [
        page("r1", "u", T),
        page("r2", "u", T + MINUTE),
        click("r2", "u", T + MINUTE + 1),
        click("r1", "u", T + MINUTE, "b"),
        click("r1", "u", T + MINUTE - 1, "a"),
    ]
    first, second = run(*lines, flush=True).joined_pages
    assert (first.user_activity, history_of(first)) == (0, [])
    assert (second.user_activity, history_of(second)) == (1, [(T + MINUTE - 1, "r1", "a")])
    assert query_clicks_of(first) == [(T + MINUTE - 1, "a", 4), (T + MINUTE, "b", 1)]


def test_a_history_entry_holds_the_clicked_item() -> None:
    items = [
        {"item_id": "x", "title": "A cable", "relevance": 3, "price": 9.5, "category": "cables", "brand": "Acme"},
        {"item_id": "y", "relevance": 1},
    ]
    event = json.loads(page("r1", "u", T, query="USB  Cable")) | {"items": items}
    lines = [json.dumps(event).encode(), click("r1", "u", T + 1, "x"), click("r1", "u", T + 2, "y")]
    _, second = run(*lines, page("r2", "u", T + SECOND), flush=True).joined_pages
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
        advance_watermark(T),
        page("r2", "u", T + WINDOW - 1),
        page("r3", "u", T + WINDOW),
    ]
    _, second, third = run(*lines, flush=True).joined_pages
    assert second.user_stats == (0, 0, 0, 0, 0, 0, 0, 0)
    assert third.user_stats == (2, 0, 0, 1, 0, 0, 0, 1)


def test_the_last_fifty_clicks_are_shown_and_all_are_counted() -> None:
    items = [f"i{number}" for number in range(70)]
    lines = [page("r1", "u", T, items=items)]
    lines += [click("r1", "u", T + number, items[number]) for number in range(70)]
    lines += [
        advance_watermark(T + WINDOW),
        page("r2", "u", T + WINDOW),
        advance_watermark(T + 3 * WINDOW),
        page("r3", "u", T + 3 * WINDOW),
    ]
    first, second, third = run(*lines, flush=True).joined_pages
    assert (first.user_activity, second.user_activity, third.user_activity) == (0, 70, 70)
    expected = [(T + number, "r1", f"i{number}") for number in range(20, 70)]
    assert history_of(second) == history_of(third) == expected


def test_clicks_since_the_oldest_open_page_are_kept_whatever_their_number() -> None:
    """A pending page sees exactly its own past, although 150 clicks came after it."""
    items = [f"i{number}" for number in range(75)]
    lines = [
        page("r0", "u", T, items=items),
        *(click("r0", "u", T + 1 + number, items[number]) for number in range(60)),
    ]
    lines.append(page("r1", "u", T + SECOND, items=items))
    for name in ("r2", "r3"):
        lines.append(page(name, "u", T + 2 * SECOND, items=items))
        lines += [click(name, "u", T + 2 * SECOND + number, item) for number, item in enumerate(items)]
    second = run(*lines, flush=True).joined_pages[1]
    assert second.request_id == "r1"
    assert second.user_activity == 60
    assert history_of(second) == [(T + 1 + number, "r0", items[number]) for number in range(10, 60)]


def test_a_user_expires_after_the_time_to_live_and_not_before() -> None:
    config = PipelineConfig(user_ttl=DAY / 1000)
    for gap, expected in ((DAY, (1, (1, 0, 0, 1, 0, 0, 0, 1))), (DAY + 1, (0, (0,) * 8))):
        last_update = T + 1
        step = [advance_watermark(last_update + number * HOUR, f"v{number}") for number in range(25)]
        lines = [page("r1", "u", T), click("r1", "u", last_update), *step, page("r2", "u", last_update + gap)]
        second = run(*lines, config=config, flush=True).joined_pages[-1]
        assert (second.user_activity, second.user_stats) == expected


def test_a_click_with_a_jumped_clock_expires_no_user() -> None:
    """A click a year ahead on a page a year ahead, neither confirmed by another user."""
    future = T + 365 * DAY
    lines = [page("r1", "u", T), click("r1", "u", T + 1), advance_watermark(T + WINDOW)]
    lines += [
        page("bad", "u", future),
        click("bad", "u", future + 1),
        page("r2", "u", T + WINDOW),
        advance_watermark(T + HOUR),
    ]
    second = run(*lines).joined_pages[-1]
    assert (second.request_id, second.user_activity) == ("r2", 1)
    assert second.user_stats == (1, 0, 0, 1, 0, 0, 0, 1)


# --- clocks that jump ----------------------------------------------------------------------------------------------


def test_a_page_from_the_future_is_dead_lettered_with_its_bytes_and_offset() -> None:
    bad = page("bad", "u", T + 365 * DAY)
    lines = [page("r", "u", T), bad, click("bad", "u", T + 365 * DAY)]
    driver = run(*lines, advance_watermark(T + HOUR - LATENESS - 1))
    assert pages_of(driver) == {"open": 1, "emitted": 1}
    driver = run(*lines, advance_watermark(T + HOUR - LATENESS))
    assert pages_of(driver) == {"emitted": 1, "dead_letter": 1}
    (rejected,) = driver.dead_letters
    assert (rejected.value, rejected.offset, rejected.reason) == (bad, 1, "future_timestamp")
    assert f"event time {T + 365 * DAY}" in rejected.detail


def test_a_future_event_expires_at_its_hour_although_nothing_else_is_due() -> None:
    close = T + WINDOW
    lines = [page("r", "u", T), click("r", "u", close + LATENESS), page("bad", "u", T + 365 * DAY)]
    assert pages_of(run(*lines, click("r", "u", close + LATENESS + HOUR - 1))) == {"emitted": 1, "open": 1}
    assert pages_of(run(*lines, click("r", "u", close + LATENESS + HOUR))) == {"emitted": 1, "dead_letter": 1}


def test_clicks_of_a_dead_lettered_page_are_evicted_as_any_others() -> None:
    items = [f"i{number}" for number in range(75)]
    future = T + 365 * DAY
    lines = [page("bad", "bad", future, items=items), *(click("bad", "bad", future + 1, item) for item in items)]
    driver = run(advance_watermark(T), *lines, advance_watermark(T + HOUR))
    assert driver.outcomes.pages.dead_letter == 1
    entry = msgspec.msgpack.decode(driver.store.entries[b"ubad"], type=StoredUser)
    assert (len(entry.clicks), entry.evicted_clicks) == (50, 25)


def test_a_pending_click_from_the_future_is_dead_lettered_with_its_bytes_and_offset() -> None:
    bad = click("bad", "u", T + 365 * DAY)
    driver = run(page("r", "u", T), bad, advance_watermark(T + HOUR - LATENESS))
    assert clicks_of(driver) == {"waiting": 1, "dead_letter": 1}
    (rejected,) = driver.dead_letters
    assert (rejected.value, rejected.offset, rejected.reason) == (bad, 1, "future_timestamp")


def test_a_click_from_the_future_that_found_its_page_is_late_and_no_dead_letter() -> None:
    driver = run(
        page("r", "u", T),
        click("r", "u", T + DAY),
        advance_watermark(T + 2 * HOUR),
        advance_watermark(T + 2 * HOUR, "w"),
    )
    assert clicks_of(driver)["late"] == 1
    assert driver.dead_letters == []


def test_after_a_quiet_night_two_users_advance_the_watermark() -> None:
    lines = [page("r1", "u", T), page("r2", "v", T + 8 * HOUR), page("r3", "w", T + 8 * HOUR + 1)]
    driver = run(*lines)
    assert [found.request_id for found in driver.joined_pages] == ["r1"]
    assert pages_of(driver) == {"emitted": 1, "open": 2}
