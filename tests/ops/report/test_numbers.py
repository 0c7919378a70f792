"""How the report writes numbers, places ticks and states uncertainty."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.model.quality.sketch import QualityStats
from prectr.ops.report.markup import Markup, join, tag
from prectr.ops.report.numbers import count, decimals_for, duration, fixed, moment, percent, ratio, ticks, time_ticks
from prectr.ops.report.quality_sections import auc_error


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (59.94, "59.9 s"),
        (60.0, "1 min"),
        (92.4, "1 min 32 s"),
        (3600.0, "1 h"),
        (3725.0, "1 h 2 min"),
        (90_000.0, "1 d 1 h"),
    ],
)
def test_durations_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_undefined_numbers_are_dashes() -> None:
    assert (fixed(None), percent(None), percent(ratio(1, 0))) == ("–", "–", "–")
    assert (fixed(0.73661), percent(ratio(1, 8)), count(1234567)) == ("0.7366", "12.5 %", "1,234,567")


@given(st.floats(-10, 10), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_ticks_are_round_within_the_axis_and_few(low: float, span: float, most: int) -> None:
    high = low + span
    marks = ticks(low, high, most)
    assert len(marks) <= most + 1
    slack = span * 1e-6
    assert all(low - slack <= mark <= high + slack for mark in marks)
    if len(marks) > 1:
        step = marks[1] - marks[0]
        digits = f"{step:.6e}".split("e")[0].rstrip("0").rstrip(".")
        assert digits in {"1", "2", "2.5", "5"}
        assert np.diff(marks) == pytest.approx(step)


@given(st.floats(0, 1), st.floats(1e-5, 1))
def test_tick_labels_tell_ticks_apart(low: float, span: float) -> None:
    marks = ticks(low, low + span)
    labels = [fixed(mark, decimals_for(marks)) for mark in marks]
    assert len(set(labels)) == len(labels)


@given(st.integers(0, 253_000_000_000_000), st.integers(1, 10**14), st.integers(3, 14))
def test_time_ticks_lie_on_the_axis_and_are_few_for_any_span(low: int, span: int, most: int) -> None:
    marks = time_ticks(low, low + span, most)
    assert len(marks) <= most + 1
    assert all(low <= at <= low + span for at, _ in marks)


def test_time_ticks_are_hours_within_a_day_and_dates_over_days() -> None:
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    hour = 3_600_000
    assert [label for _, label in time_ticks(start, start + 12 * hour)] == [
        "1 Jan",
        "02:00",
        "04:00",
        "06:00",
        "08:00",
        "10:00",
        "12:00",
    ]
    days = time_ticks(start, start + 10 * 24 * hour)
    assert [label for _, label in days][:2] == ["1 Jan", "3 Jan"]
    assert moment(start + hour) == "1 Jan 2026, 01:00"


def test_the_error_of_an_auc_is_the_spread_of_repeated_measurements() -> None:
    rng = np.random.default_rng(0)
    clicked, unclicked = 60, 300
    # Exponential scores, for which Hanley and McNeil's formula is derived.
    won = rng.exponential(2.0, (1000, clicked, 1)) > rng.exponential(1.0, (1000, 1, unclicked))
    aucs = won.mean(axis=(1, 2))
    figures = QualityStats(
        pages=1,
        impressions=clicked + unclicked,
        clicks=clicked,
        auc=float(np.mean(aucs)),
        gauc=None,
        log_loss=None,
        normalized_entropy=None,
        calibration=None,
    )
    assert auc_error(figures) == pytest.approx(np.std(aucs), rel=0.08)


def test_text_is_escaped_and_markup_is_not() -> None:
    bold = tag("b", "1 < 2", title='"quoted" & co')
    assert bold == '<b title="&quot;quoted&quot; &amp; co">1 &lt; 2</b>'
    assert tag("p", bold, " & ", Markup("<br>")) == f"<p>{bold} &amp; <br></p>"
    assert join("a\x00b\nc\x7f") == "a\ufffdb\nc\ufffd"
    assert tag("line", x1=1.5, x2=10, class_="axis", stroke_width=2.0) == (
        '<line x1="1.5" x2="10" class="axis" stroke-width="2"></line>'
    )
