"""When a task reports that it is idle, and how far the others may advance without it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.ordering.frames import Frame
from prectr.stream.ordering.watermark import SourceIdleness
from tests.kit.stages.events import LATENESS, SECOND, WINDOW, T, click, page
from tests.kit.stages.live_join_task import OWN_PARTITION, PARTITIONS, JoinTaskHarness


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JoinTaskHarness]:
    # The partition settles on a time with its first record.
    monkeypatch.setattr("prectr.stream.join.event_clock.SETTLING_RECORDS", 1)
    task = JoinTaskHarness(tmp_path, monkeypatch)
    yield task
    task.close()


def sampled_ends(task: JoinTaskHarness, *others: int) -> list[int]:
    """End offsets of all logs, where this task has read its own to the end."""
    ends = list(others)
    ends.insert(OWN_PARTITION, task.offset)
    return ends


def idleness_in(frames: Sequence[Frame]) -> SourceIdleness | None:
    """The idleness sent to all partitions, which must be the same."""
    assert len(frames) == PARTITIONS
    assert all(frame.idleness == frames[0].idleness for frame in frames)
    return frames[0].idleness


def with_two_pages(task: JoinTaskHarness) -> int:
    """Two pages are pending; return the close time of the first."""
    task.process(page("a", "u", T), page("b", "u", T + 2 * SECOND))
    return T + WINDOW


def test_idleness_is_not_reported_before_five_seconds(task: JoinTaskHarness) -> None:
    with_two_pages(task)
    task.advance_time(4.9)
    assert task.punctuate(sampled_ends(task, 10, 10)) == []
    assert task.punctuate(sampled_ends(task, 11, 10)) == []


def test_a_pause_of_the_whole_log_is_not_idleness(task: JoinTaskHarness) -> None:
    with_two_pages(task)
    for _ in range(27):
        task.advance_time(2)
        assert task.punctuate(sampled_ends(task, 10, 10)) == []


def test_while_others_grow_they_may_advance_to_just_before_the_next_open_page_here(task: JoinTaskHarness) -> None:
    closes_at = with_two_pages(task)
    task.advance_time(6)
    assert task.punctuate(sampled_ends(task, 10, 10)) == []
    task.advance_time(1)
    assert idleness_in(task.punctuate(sampled_ends(task, 10, 11), sampled_ends(task, 10, 15))) == SourceIdleness(
        sampled_ends(task, 10, 11), closes_at - 1
    )


def test_what_others_write_right_now_is_not_covered_yet(task: JoinTaskHarness) -> None:
    """`observed_offsets` are of the previous sample: only since then has this task been known to be at its end."""
    with_two_pages(task)
    task.advance_time(6)
    task.punctuate(sampled_ends(task, 10, 10))
    task.advance_time(1)
    assert task.punctuate(sampled_ends(task, 10, 10), sampled_ends(task, 10, 11)) == []


def test_idleness_is_renewed_as_the_others_grow(task: JoinTaskHarness) -> None:
    closes_at = with_two_pages(task)
    task.advance_time(6)
    task.punctuate(sampled_ends(task, 10, 10))
    for end in (20, 30, 40):
        task.advance_time(1)
        found = idleness_in(task.punctuate(sampled_ends(task, 10, end), sampled_ends(task, 10, end + 5)))
        assert found == SourceIdleness(sampled_ends(task, 10, end), closes_at - 1)
        assert task.punctuate_without_sample() == []


def test_without_open_pages_others_are_not_held(task: JoinTaskHarness) -> None:
    """A pending click has advanced the clock, and both pages have closed."""
    with_two_pages(task)
    task.process(click("c", "u", T + WINDOW + LATENESS + 3 * SECOND))
    task.advance_time(6)
    task.punctuate(sampled_ends(task, 10, 10))
    task.advance_time(1)
    found = idleness_in(task.punctuate(sampled_ends(task, 11, 10)))
    assert found is not None
    assert found.observed_offsets == sampled_ends(task, 11, 10)
    assert found.hold_until >= MAX_WATERMARK - 1


def test_after_the_idle_timeout_others_are_not_held_while_they_grow(task: JoinTaskHarness) -> None:
    closes_at = with_two_pages(task)
    task.advance_time(30)
    task.punctuate(sampled_ends(task, 10, 10))
    task.advance_time(29)
    assert idleness_in(task.punctuate(sampled_ends(task, 20, 10))) == SourceIdleness(
        sampled_ends(task, 20, 10), closes_at - 1
    )
    task.advance_time(2)
    assert idleness_in(task.punctuate(sampled_ends(task, 30, 10))) == SourceIdleness(
        sampled_ends(task, 30, 10), MAX_WATERMARK
    )


def test_a_pause_of_all_beyond_the_idle_timeout_makes_no_open_page_late(task: JoinTaskHarness) -> None:
    closes_at = with_two_pages(task)
    task.advance_time(40)
    assert task.punctuate(sampled_ends(task, 10, 10)) == []
    task.advance_time(30)
    assert idleness_in(task.punctuate(sampled_ends(task, 10, 10))) == SourceIdleness(
        sampled_ends(task, 10, 10), closes_at - 1
    )


def test_without_any_valid_event_no_source_is_held(task: JoinTaskHarness) -> None:
    """Neither an empty partition nor one with only dead letters holds the others back."""
    task.process(b"no event", b"{}")
    task.advance_time(4.9)
    assert task.punctuate(sampled_ends(task, 10, 10)) == []
    task.advance_time(0.2)
    (first, *_) = frames = task.punctuate(sampled_ends(task, 10, 10))
    assert idleness_in(frames) == SourceIdleness(sampled_ends(task, 10, 10), MAX_WATERMARK)
    assert first.watermark == MIN_WATERMARK


def test_unread_records_are_not_idleness_and_restart_the_timer(task: JoinTaskHarness) -> None:
    """Even if it cannot be read yet, because a transaction of the loader is open."""
    with_two_pages(task)
    task.advance_time(100)
    behind = sampled_ends(task, 10, 10)
    behind[OWN_PARTITION] += 1
    assert task.punctuate(behind) == []
    task.advance_time(4)
    assert task.punctuate(sampled_ends(task, 20, 10)) == []
    task.advance_time(2)
    assert (
        task.punctuate(sampled_ends(task, 30, 10)) == []
    )  # what others wrote meanwhile was not written during its idleness
    task.advance_time(1)
    assert idleness_in(task.punctuate(sampled_ends(task, 31, 10))) is not None


def test_growth_of_others_before_this_log_was_drained_does_not_count(task: JoinTaskHarness) -> None:
    with_two_pages(task)
    task.advance_time(6)
    task.punctuate(sampled_ends(task, 10, 10))
    task.advance_time(1)
    assert idleness_in(task.punctuate(sampled_ends(task, 11, 10))) is not None
    task.process(page("c", "u", T + 3 * SECOND))
    task.advance_time(6)
    assert task.punctuate(sampled_ends(task, 50, 50)) == []
    task.advance_time(1)
    assert task.punctuate(sampled_ends(task, 50, 50)) == []


def test_own_growth_is_not_growth_of_others(task: JoinTaskHarness) -> None:
    """The marker that ends a loader's transaction occupies an offset, but is no record."""
    with_two_pages(task)
    task.advance_time(6)
    task.punctuate(sampled_ends(task, 10, 10))
    task.offset += 1
    task.advance_time(1)
    assert task.punctuate(sampled_ends(task, 10, 10)) == []


def test_a_source_that_resumes_ends_its_idleness_immediately(task: JoinTaskHarness) -> None:
    """Also to the partitions without records, which would advance without it otherwise."""
    with_two_pages(task)
    task.advance_time(6)
    task.punctuate(sampled_ends(task, 10, 10))
    task.advance_time(1)
    assert idleness_in(task.punctuate(sampled_ends(task, 11, 10))) is not None
    frames = task.process(page("c", "u", T + 3 * SECOND))
    assert idleness_in(frames) is None
    assert all(frame.read_offset == task.offset for frame in frames)


def test_one_sample_after_a_long_time_is_no_growth_within_the_idle_period(task: JoinTaskHarness) -> None:
    """Of two samples, the first may be old: records written between them may precede the idleness."""
    with_two_pages(task)
    task.advance_time(6)
    assert task.punctuate(sampled_ends(task, 10, 10), sampled_ends(task, 50, 50)) == []
    task.advance_time(1)
    assert task.punctuate(sampled_ends(task, 50, 50)) == []
