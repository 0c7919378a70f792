"""How far events run backwards: counted against the largest time so far, whatever a few wrong clocks say."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from prectr.stream.replay.disorder import Disorder

T = 1_700_000_000_000
SECOND, HOUR = 1000, 3_600_000
LATENESS, SKEW = 5 * SECOND, HOUR


def measured(times: Sequence[int], step: int = 1 << 30) -> Disorder:
    disorder = Disorder()
    for start in range(0, len(times), step):
        disorder.add(np.array(times[start : start + step], dtype=np.int64), LATENESS, SKEW)
    assert disorder.events == len(times)
    return disorder


def behind_by_hand(times: Sequence[int]) -> int:
    return sum(ts < max(times[: index + 1]) - LATENESS for index, ts in enumerate(times))


@pytest.mark.parametrize("gap", [10, 30 * SECOND, 2 * HOUR])
def test_a_log_in_order_has_none(gap: int) -> None:
    times = [T + n * gap for n in range(500)]
    assert measured(times).behind == measured(times, 7).behind == 0


@pytest.mark.parametrize("step", [1, 50, 300, 1 << 30])
def test_events_behind_the_allowed_lateness_are_counted(step: int) -> None:
    rng = Random(0)
    times = [T + n * SECOND - rng.choice([0, 0, 0, 4 * SECOND, 20 * SECOND, HOUR // 2]) for n in range(1000)]
    assert measured(times, step).behind == behind_by_hand(times) > 300


@pytest.mark.parametrize("step", [20, 1 << 30])
def test_a_shuffled_log_of_a_month_steps_back_nearly_everywhere(step: int) -> None:
    times = [T + n * HOUR // 4 for n in range(3000)]
    Random(1).shuffle(times)
    assert measured(times, step).behind == pytest.approx(behind_by_hand(times), rel=0.1)
    assert measured(times, step).share > 0.9


def test_clicks_after_all_pages_step_back() -> None:
    pages = [T + n * 30 * SECOND for n in range(200)]
    clicks = [ts + 10 * SECOND for ts in pages]
    assert measured(pages + clicks).behind == 199


@pytest.mark.parametrize("step", [1, 100, 1 << 30])
@pytest.mark.parametrize("wrong", [4_070_908_800_000, T - 1000 * HOUR, T + 8 * HOUR])
def test_a_first_event_or_a_few_with_a_wrong_clock_are_not_the_log(step: int, wrong: int) -> None:
    right = [T + n * 30 * SECOND for n in range(400)]
    assert measured([wrong, *right], step).behind <= (wrong > T)
    assert measured([wrong, *right], step).ahead == (wrong > T)
    few = [ts for n, ts in enumerate(right) for ts in ([wrong] if n % 10 == 5 else []) + [ts]]
    assert measured(few, step).behind == (40 if wrong < T else 0)
    assert measured(few, step).ahead == (0 if wrong < T else 40)


@pytest.mark.parametrize("step", [1, 100, 1 << 30])
@pytest.mark.parametrize("gap", [30 * SECOND, 5 * HOUR])
def test_a_quiet_night_before_the_last_events_is_no_wrong_clock(step: int, gap: int) -> None:
    times = [T + n * gap for n in range(300)]
    times += [times[-1] + 9 * HOUR + n * SECOND for n in range(5)]
    assert (measured(times, step).ahead, measured(times, step).behind) == (0, 0)


@pytest.mark.parametrize("step", [1, 100, 1 << 30])
def test_users_in_another_time_zone_are_ahead(step: int) -> None:
    rng = Random(2)
    is_ahead = [n > 0 and rng.random() < 0.2 for n in range(1000)]
    times = [T + n * SECOND + 8 * HOUR * wrong for n, wrong in enumerate(is_ahead)]
    assert measured(times, step).ahead == pytest.approx(sum(is_ahead), abs=3)
