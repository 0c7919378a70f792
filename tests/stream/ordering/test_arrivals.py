"""After how long a silence is conspicuous, by the rate of the latest events."""

import pytest

from prectr.stream.ordering.arrivals import Arrivals

NOW = 1_700_000_000_000
MINUTE = 60_000


def arrived(*times: int) -> Arrivals:
    arrivals = Arrivals()
    for time in times:
        arrivals.observe(time, time, 1)
    return arrivals


@pytest.mark.parametrize(
    ("distance", "silence"),
    [(10, MINUTE), (1_200, MINUTE), (2_000, 100_000), (11_000, 550_000), (5 * MINUTE, 10 * MINUTE)],
)
def test_fifty_times_the_mean_distance_within_a_minute_and_ten(distance: int, silence: int) -> None:
    arrivals = arrived(*range(NOW, NOW + 100 * distance, distance))
    assert arrivals.longest_usual_silence == silence
    assert arrivals.newest == NOW + 99 * distance


def test_the_latest_thousand_count() -> None:
    arrivals = arrived(*range(NOW - 10 * MINUTE, NOW, 3_000), *range(NOW, NOW + 1_000))
    assert arrivals.longest_usual_silence == MINUTE


def test_a_producer_that_sends_in_batches_is_not_silent_between_them() -> None:
    arrivals = Arrivals()
    for batch in range(6):
        at = NOW + batch * 2 * MINUTE
        arrivals.observe(at, at + 5, 2_000)
    assert arrivals.longest_usual_silence == pytest.approx(4 * MINUTE, abs=100)
    for second in range(3_700):
        arrivals.observe(at + second * 1_000, at + second * 1_000, 50)
    assert arrivals.longest_usual_silence == MINUTE, "an hour later"


def test_without_a_rate_only_ten_minutes_are_conspicuous() -> None:
    assert Arrivals().longest_usual_silence == arrived(NOW).longest_usual_silence == 10 * MINUTE
    assert Arrivals().newest is None
