"""A leak is told from noise, from warm-up, and from the lower memory of a process that has just started."""

import random
from collections.abc import Callable

import pytest
from scipy.stats import theilslopes

from tests.faults.soak.flatness import Trend, theil_sen_slope, trends
from tests.faults.soak.samples import Sample

MIB = 1 << 20
HOUR = 3_600


def lasting(memory: Callable[[float], float], descriptors: Callable[[float], int] = lambda at: 40) -> list[Sample]:
    """A process of an hour."""
    return [
        Sample(at=at, name="p", pid=1, age=at, memory=round(memory(at) * MIB), descriptors=descriptors(at), threads=9)
        for at in range(0, HOUR + 1, 5)
    ]


def restarted(memory: Callable[[int, float], float]) -> list[Sample]:
    """A process that is restarted every minute; memory: by its number and age."""
    return [
        Sample(
            at=60.0 * pid + age,
            name="p",
            pid=pid,
            age=age,
            memory=round(memory(pid, age) * MIB),
            descriptors=9,
            threads=9,
        )
        for pid in range(60)
        for age in range(0, 60, 5)
    ]


def trend(samples: list[Sample], quantity: str = "memory") -> Trend:
    (found,) = [each for each in trends(samples) if each.quantity == quantity]
    return found


def test_noise_and_warm_up_are_flat() -> None:
    rng = random.Random(1)
    assert trend(lasting(lambda at: 300 + rng.gauss(0, 20) - 100 * (at < 600))).flat


def test_a_leak_of_a_tenth_in_half_an_hour_is_growing() -> None:
    rng = random.Random(2)
    found = trend(lasting(lambda at: 300 + rng.gauss(0, 5) + 30 * at / (HOUR / 2)))
    assert not found.flat
    assert found.growth == pytest.approx(30 * MIB, rel=0.1)


def test_a_few_peaks_do_not_make_a_trend() -> None:
    assert trend(lasting(lambda at: 900 if at > HOUR - 60 else 300)).flat


@pytest.mark.parametrize(("leaks", "flat"), [(2, True), (10, False)])
def test_descriptors_may_grow_by_three_in_any_case(leaks: int, flat: bool) -> None:
    found = trend(lasting(lambda at: 300, lambda at: 40 + round(leaks * at / (HOUR / 2))), "descriptors")
    assert found.flat is flat


def test_restarted_processes_are_compared_at_equal_age() -> None:
    assert trend(restarted(lambda pid, age: 100 + 2 * age)).flat
    assert not trend(restarted(lambda pid, age: 100 + 2 * age + pid)).flat


def test_the_slope_is_that_of_theil_and_sen() -> None:
    rng = random.Random(3)
    points = [(float(x), 2.0 * x + rng.gauss(0, 5)) for x in range(60)]
    expected = theilslopes([y for _, y in points], [x for x, _ in points]).slope
    assert theil_sen_slope(points) == pytest.approx(expected)
