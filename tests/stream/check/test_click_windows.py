"""Clicks by attribution window: hand-made logs, and stage `join` as the oracle, on the log as it is and sorted."""

import itertools
import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from prectr.stream.check.click_windows import WINDOWS, WindowCount, proposed_window
from prectr.stream.config import PipelineConfig
from tests.kit.stages.events import HOUR, MINUTE, SECOND, T, click, page
from tests.kit.stages.join_driver import JoinDriver
from tests.oracle.world import Disorder, make_world
from tests.stream.check.checked import CROWD, check_lines

DELAYS = (5, 20, 45, 90, 200, 600, 3_000, 40_000)
"""Seconds from page to click: one in each interval between two windows."""


def joined_by_stage(lines: list[bytes], window: float) -> int:
    """Labels that stage `join` makes of lines, with an attribution window in seconds."""
    driver = JoinDriver(PipelineConfig(partitions=1, attribution_window=window))
    driver.run(lines, itertools.repeat(64))
    driver.task.flush()
    return driver.task.outcomes.clicks.joined


def by_time(lines: list[bytes]) -> list[bytes]:
    return sorted(lines, key=lambda line: json.loads(line)["ts"])


def test_each_window_finds_the_clicks_up_to_its_length() -> None:
    pages = [page(f"r{number}", f"u{number}", T) for number in range(len(DELAYS))]
    clicks = [click(f"r{number}", f"u{number}", T + delay * SECOND) for number, delay in enumerate(DELAYS)]
    report = check_lines(by_time(pages + clicks)).clicks
    assert [count.window_seconds for count in report.windows] == list(WINDOWS)
    assert [count.joined for count in report.windows] == [1, 2, 3, 4, 5, 6, 7, 7, 8]
    assert [count.joined_if_sorted for count in report.windows] == [1, 2, 3, 4, 5, 6, 7, 7, 8]
    assert report.configured == WindowCount(120.0, 4, 4)
    assert report.proposed_window_seconds == 86_400
    assert (report.median_delay_ms, report.p95_delay_ms) == (90 * SECOND, 40_000 * SECOND)


def test_the_smallest_window_that_finds_99_percent_is_proposed() -> None:
    def windows(*joined: int) -> list[WindowCount]:
        return [WindowCount(seconds, 0, count) for seconds, count in zip(WINDOWS, joined, strict=False)]

    assert proposed_window(windows(10, 98, 99, 100)) == 60
    assert proposed_window(windows(100, 100)) == 10
    assert proposed_window(windows(0, 0)) is None


def test_pages_in_one_file_and_clicks_after_them_join_only_if_sorted() -> None:
    pages = CROWD + [page(f"r{number}", "u", T + number * MINUTE) for number in range(30)]
    clicks = [click(f"r{number}", "u", T + number * MINUTE + 5 * SECOND) for number in range(30)]
    report = check_lines(pages + clicks)
    # The last page is at minute 29, so the watermark has passed the window of those up to minute 26.
    assert report.clicks.configured == WindowCount(120.0, 3, 30)
    assert joined_by_stage(pages + clicks, 120.0) == 3
    assert not report.ready


def test_what_becomes_of_clicks_is_counted_by_reason() -> None:
    lines = [
        page("r1", "u1", T, items=("a", "b")),
        page("r1", "u1", T, items=("a", "b")),
        page("r1", "u1", T + 1, items=("a", "c")),
        page("r2", "u2", T + SECOND),
        click("r1", "u1", T + SECOND, "a"),
        click("r1", "u1", T + 2 * SECOND, "a"),
        click("r1", "u1", T + 2 * SECOND, "z"),
        click("r2", "u1", T + 2 * SECOND, "a"),
        click("r3", "u1", T + 2 * SECOND, "a"),
        click("r2", "u2", T, "b"),
    ]
    clicks = check_lines(lines).clicks
    assert (clicks.pages, clicks.repeated_pages, clicks.conflicting_pages) == (4, 1, 1)
    assert (clicks.clicks, clicks.distinct) == (6, 5)
    assert (clicks.without_page, clicks.of_another_user, clicks.not_shown, clicks.before_page) == (2, 1, 1, 1)
    assert clicks.configured.joined == 2


def events() -> st.SearchStrategy[list[bytes]]:
    """Up to 30 pages and clicks of two users within 10 minutes, in any order, many for the same page."""
    ts = st.integers(0, 60).map(lambda tens: T + 10 * SECOND * tens)
    request, user = st.sampled_from(["r0", "r1", "r2"]), st.sampled_from(["u0", "u1"])
    shown = st.sampled_from([("a", "b"), ("a",), ("b", "a"), ("a", "c", "a")])
    pages = st.builds(lambda r, u, t, items: page(r, u, t, items=items), request, user, ts, shown)
    clicks = st.builds(click, request, user, ts, st.sampled_from(["a", "b", "c"]))
    return st.lists(pages | clicks, max_size=30)


@settings(max_examples=150, deadline=None)
@given(events(), st.sampled_from([10.0, 60.0, 120.0, 300.0]))
@example([click("r0", "u0", T), page("r0", "u0", T + 140_000)], 120.0)
@example([click("r0", "u0", T), page("r0", "u0", T + 125_000)], 120.0)
def test_counts_are_those_of_stage_join_in_any_order_and_sorted(lines: list[bytes], window: float) -> None:
    clicks = check_lines(CROWD + lines, attribution_window=window).clicks
    assert clicks.configured.joined == joined_by_stage(CROWD + lines, window)
    assert clicks.configured.joined_if_sorted == joined_by_stage(by_time(CROWD + lines), window)
    assert clicks.configured in clicks.windows


def test_the_count_of_a_disordered_log_is_that_of_stage_join() -> None:
    """Nights, clocks that jump and late events, but no event that is refused afterwards."""
    lines = make_world(3, Disorder(pages=150, users=9, gap=30.0, late=0.1, nights=2, malformed=0.05, conflict=0.05))
    clicks = check_lines(lines).clicks
    assert clicks.configured.joined == joined_by_stage(lines, 120.0)


def test_a_window_that_is_too_short_is_a_problem_and_the_longer_one_is_proposed() -> None:
    lines = []
    for number in range(100):
        lines += [page(f"r{number}", f"u{number}", T + number * HOUR)]
        lines += [click(f"r{number}", f"u{number}", T + number * HOUR + 10 * MINUTE)]
    report = check_lines(lines)
    window = next(finding for finding in report.findings if finding.subject == "window")
    assert window.severity == "problem"
    assert window.advice.startswith("set attribution_window to 15m")
    assert "finds 0 % of the clicks" in window.message
    assert "window" not in {finding.subject for finding in check_lines(lines, attribution_window=900.0).findings}
