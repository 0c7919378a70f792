"""A client that reads no more is noticed, and one that has nothing to read is left alone."""

from prectr.ops.monitor.stall import StallDetector


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def stalls(detector: StallDetector, clock: Clock, seconds: int, received: int, lag: int | None) -> list[int]:
    """Ask once a second; return the seconds at which it stalled."""
    found = []
    for second in range(1, seconds + 1):
        clock.now += 1
        if detector.is_stalled(received, lag):
            found.append(second)
    return found


def test_records_that_are_there_and_do_not_arrive_for_half_a_minute_are_a_stall() -> None:
    clock = Clock()
    detector = StallDetector(clock)
    assert stalls(detector, clock, 600, 0, 0) == []
    assert stalls(detector, clock, 40, 0, 5) == [30]


def test_restarts_that_do_not_help_become_rare_and_progress_makes_it_patient_no_longer() -> None:
    clock = Clock()
    detector = StallDetector(clock)
    detector.is_stalled(7, 0)
    assert stalls(detector, clock, 2000, 7, 5) == [30, 90, 210, 450, 930, 1530]
    assert stalls(detector, clock, 31, 8, 5) == [31]


def test_a_lag_that_is_unknown_or_shrinks_is_no_stall() -> None:
    clock = Clock()
    detector = StallDetector(clock)
    assert stalls(detector, clock, 600, 3, None) == []
    for received in range(100):
        assert stalls(detector, clock, 29, received, 50) == []
