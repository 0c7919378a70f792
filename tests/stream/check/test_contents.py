"""Order, items, fields and pace of hand-made logs."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prectr.stream.check.fields import Feature
from prectr.stream.check.pace import mean_batch, pace_report
from prectr.stream.check.time_order import overlapping
from prectr.stream.events.nesting import MAX_DEPTH
from tests.kit.stages.events import DAY, HOUR, MINUTE, SECOND, T, click, page
from tests.stream.check.checked import CROWD, check_lines, found


def test_lines_that_step_back_are_counted_beyond_the_allowed_lateness() -> None:
    steps = (0, 60, 56, 55, 54, 20, 100)
    lines = [page(f"r{number}", f"u{number}", T + SECOND * step) for number, step in enumerate(steps)]
    report = check_lines(CROWD + lines)
    # 54 and 20 are more than 5 s behind 60.
    assert (report.order.events, report.order.behind, report.order.largest_ms) == (87, 2, 40 * SECOND)
    assert (report.order.first_ts, report.order.last_ts) == (T - 60 * SECOND, T + 100 * SECOND)
    assert 6 * SECOND <= report.order.median_ms <= 2 * 6 * SECOND
    assert report.order.p99_ms == 40 * SECOND
    assert found(report)["order"] == "problem"


def test_events_ahead_of_all_others_are_told() -> None:
    lines = [page("r0", "bad", T)]
    for number in range(200):
        lines += [page(f"r{number}", f"u{number % 9}", T + number * MINUTE)]
        lines += [click(f"r{number}", f"u{number % 9}", T + number * MINUTE + SECOND)]
    lines.insert(5, page("far", "bad", T + 365 * DAY))
    report = check_lines(lines)
    assert report.order.ahead == 1
    assert found(report)["time"] == "warning"


def test_files_that_overlap_in_time_are_counted() -> None:
    assert overlapping([(0, 10), (10, 20), (21, 30)]) == 0
    assert overlapping([(0, 10), (5, 20), (15, 30)]) == 2
    assert overlapping([(0, 100), (10, 20), (100, 110)]) == 1
    assert overlapping([(50, 60), (0, 10)]) == 1
    assert overlapping([]) == 0


def positioned(request_id: str, positions: list[int | None], items: list[str] | None = None) -> bytes:
    shown = [
        {"item_id": item} | ({} if position is None else {"position": position})
        for item, position in zip(items or list("abcdef"), positions, strict=False)
    ]
    return json.dumps(json.loads(page(request_id, "u", T)) | {"items": shown}).encode()


def test_positions_and_items_are_counted_by_page() -> None:
    lines = [
        positioned("plain", [None, None]),
        positioned("given", [1, 2, 3]),
        positioned("second screen", [11, 12]),
        positioned("gap", [1, 2, 5, 6]),
        positioned("twice", [1, 1, 2]),
        positioned("item twice", [1, 2], ["a", "a"]),
    ]
    items = check_lines(lines).items
    assert (items.pages, items.impressions, items.smallest, items.median, items.largest) == (6, 16, 2, 2, 4)
    assert (items.consecutive, items.start_later, items.gaps) == (3, 1, 1)
    assert (items.repeated_positions, items.repeated_items) == (1, 1)


def test_levels_are_counted_as_they_were_logged() -> None:
    items = check_lines([page("r", "u", T, items=list("abcde"), levels=[4, 1, None, 1, 3])]).items
    assert items.levels == {"1": 2, "2": 0, "3": 1, "4": 1}
    assert items.without_level == 1


def test_fields_are_listed_with_kind_and_share() -> None:
    lines = [
        page("r1", "u", T, context={"device": "phone"}, features={"hour": 3}, session="s"),
        page("r2", "u", T, context={"device": "desktop"}, features={"hour": "late"}),
        page("r3", "u", T),
        page("r4", "u", T),
        click("r1", "u", T)[:-1] + b', "rank": 3}',
    ]
    fields = check_lines(lines).fields
    assert (fields.pages, fields.items, fields.clicks) == (4, 8, 1)
    assert fields.features == [
        Feature("page.context", "device", "text", 0.5),
        Feature("page.features", "hour", "mixed", 0.5),
    ]
    assert fields.ignored == {"page.session": 0.25, "click.rank": 1.0}
    assert (fields.present["title"], fields.present["relevance"], fields.present["price"]) == (1.0, 1.0, 0.0)


@given(st.lists(st.integers(0, 1_000), min_size=1), st.integers(1, 5), st.integers(0, 100))
def test_batches_are_cut_as_the_trainer_cuts_them(times: list[int], batch_pages: int, span: int) -> None:
    ordered = sorted(times)
    batches: list[list[int]] = []
    for ts in ordered:
        if not batches or len(batches[-1]) == batch_pages or ts - batches[-1][0] > span:
            batches.append([])
        batches[-1].append(ts)
    assert mean_batch(np.array(ordered), batch_pages, span) == len(ordered) / len(batches)


def test_pages_a_minute_and_a_sparse_log() -> None:
    times = np.array([T + number * HOUR for number in range(25)])
    pace = pace_report(times, 1.0, 16, 60.0)
    assert (pace.pages_per_minute, pace.pages_per_batch) == (25 / (24 * 60), 1.0)
    assert pace_report(times, 1.0, 16, 10 * 86_400.0).pages_per_batch == 25 / 2
    assert pace_report(times, 0.25, 16, 10 * 86_400.0).pages_per_minute == 100 / (24 * 60)
    assert pace_report(times[:0], 1.0, 16, 60.0).pages_per_batch is None


def test_a_field_nested_as_deeply_as_an_event_may_have_it_is_looked_at() -> None:
    deepest = MAX_DEPTH - 1
    deep = page("r", "u", T)[:-1] + b', "more": ' + b"[" * deepest + b"]" * deepest + b"}"
    report = check_lines([deep, page("r2", "u", T)])
    assert (report.validity.pages, report.validity.invalid) == (2, 0)
    assert report.fields.pages == 2
