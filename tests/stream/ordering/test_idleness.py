"""When a task says that it is silent, and how far the others may go without it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from prectr.stream.join.event_clock import BEFORE_TIME, END_OF_TIME
from prectr.stream.ordering.frames import Frame
from prectr.stream.ordering.watermark import Silence
from tests.kit.stages.events import LATENESS, SECOND, WINDOW, T, click, page
from tests.kit.stages.live_join_task import OURS, PARTITIONS, LiveSessions


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveSessions]:
    task = LiveSessions(tmp_path, monkeypatch)
    yield task
    task.close()


def logs(task: LiveSessions, *others: int) -> list[int]:
    """How far all logs reach, where this task has read its own to the end."""
    ends = list(others)
    ends.insert(OURS, task.offset)
    return ends


def silence_in(frames: Sequence[Frame]) -> Silence | None:
    """What all partitions are told, as all must be."""
    assert len(frames) == PARTITIONS
    assert all(frame.silence == frames[0].silence for frame in frames)
    return frames[0].silence


def with_two_pages(task: LiveSessions) -> int:
    """Two pages are open; the effective close of the first."""
    task.take(page("a", "u", T), page("b", "u", T + 2 * SECOND))
    return T + WINDOW


def test_before_five_seconds_nobody_is_told_of_any_silence(task: LiveSessions) -> None:
    with_two_pages(task)
    task.wait(4.9)
    assert task.look(logs(task, 10, 10)) == []
    assert task.look(logs(task, 11, 10)) == []


def test_a_pause_of_the_whole_log_is_no_silence(task: LiveSessions) -> None:
    with_two_pages(task)
    for _ in range(27):
        task.wait(2)
        assert task.look(logs(task, 10, 10)) == []


def test_while_others_grow_they_may_go_on_to_just_before_the_next_page_that_is_open_here(task: LiveSessions) -> None:
    closes_at = with_two_pages(task)
    task.wait(6)
    assert task.look(logs(task, 10, 10)) == []
    task.wait(1)
    assert silence_in(task.look(logs(task, 10, 11), logs(task, 10, 15))) == Silence(logs(task, 10, 11), closes_at - 1)


def test_what_others_write_right_now_is_not_covered_yet(task: LiveSessions) -> None:
    """`seen` is of the look before: that this task has read its own partition to its end is known since then only."""
    with_two_pages(task)
    task.wait(6)
    task.look(logs(task, 10, 10))
    task.wait(1)
    assert task.look(logs(task, 10, 10), logs(task, 10, 11)) == []


def test_the_claim_is_renewed_as_the_others_go_on(task: LiveSessions) -> None:
    closes_at = with_two_pages(task)
    task.wait(6)
    task.look(logs(task, 10, 10))
    for end in (20, 30, 40):
        task.wait(1)
        found = silence_in(task.look(logs(task, 10, end), logs(task, 10, end + 5)))
        assert found == Silence(logs(task, 10, end), closes_at - 1)
        assert task.no_look() == []


def test_without_open_pages_nothing_here_holds_the_others_up(task: LiveSessions) -> None:
    """A click that waits for its page has moved the clock on, and both pages have closed."""
    with_two_pages(task)
    task.take(click("c", "u", T + WINDOW + LATENESS + 3 * SECOND))
    task.wait(6)
    task.look(logs(task, 10, 10))
    task.wait(1)
    found = silence_in(task.look(logs(task, 11, 10)))
    assert found is not None
    assert found.seen == logs(task, 11, 10)
    assert found.bound >= END_OF_TIME - 1


def test_after_the_idle_timeout_the_others_wait_for_nothing_while_they_go_on(task: LiveSessions) -> None:
    closes_at = with_two_pages(task)
    task.wait(30)
    task.look(logs(task, 10, 10))
    task.wait(29)
    assert silence_in(task.look(logs(task, 20, 10))) == Silence(logs(task, 20, 10), closes_at - 1)
    task.wait(2)
    assert silence_in(task.look(logs(task, 30, 10))) == Silence(logs(task, 30, 10), END_OF_TIME)


def test_a_pause_of_all_beyond_the_idle_timeout_leaves_no_open_page_behind(task: LiveSessions) -> None:
    closes_at = with_two_pages(task)
    task.wait(40)
    assert task.look(logs(task, 10, 10)) == []
    task.wait(30)
    assert silence_in(task.look(logs(task, 10, 10))) == Silence(logs(task, 10, 10), closes_at - 1)


def test_with_never_any_valid_event_nobody_waits(task: LiveSessions) -> None:
    """Neither an empty partition nor one with dead letters alone has a time to be held by."""
    task.take(b"no event", b"{}")
    task.wait(4.9)
    assert task.look(logs(task, 10, 10)) == []
    task.wait(0.2)
    (first, *_) = frames = task.look(logs(task, 10, 10))
    assert silence_in(frames) == Silence(logs(task, 10, 10), END_OF_TIME)
    assert first.watermark == BEFORE_TIME


def test_what_is_unread_is_no_silence_and_time_is_counted_anew(task: LiveSessions) -> None:
    """Also where it cannot be read yet, since a transaction of the loader's is open."""
    with_two_pages(task)
    task.wait(100)
    behind = logs(task, 10, 10)
    behind[OURS] += 1
    assert task.look(behind) == []
    task.wait(4)
    assert task.look(logs(task, 20, 10)) == []
    task.wait(2)
    assert task.look(logs(task, 30, 10)) == []  # what others wrote meanwhile was not written in its silence
    task.wait(1)
    assert silence_in(task.look(logs(task, 31, 10))) is not None


def test_what_others_wrote_while_it_still_had_something_to_read_is_no_reason(task: LiveSessions) -> None:
    with_two_pages(task)
    task.wait(6)
    task.look(logs(task, 10, 10))
    task.wait(1)
    assert silence_in(task.look(logs(task, 11, 10))) is not None
    task.take(page("c", "u", T + 3 * SECOND))
    task.wait(6)
    assert task.look(logs(task, 50, 50)) == []
    task.wait(1)
    assert task.look(logs(task, 50, 50)) == []


def test_what_grows_here_is_no_growth_of_others(task: LiveSessions) -> None:
    """The end of a loader's transaction takes an offset, and is nothing to read."""
    with_two_pages(task)
    task.wait(6)
    task.look(logs(task, 10, 10))
    task.offset += 1
    task.wait(1)
    assert task.look(logs(task, 10, 10)) == []


def test_whoever_speaks_again_tells_everybody_at_once(task: LiveSessions) -> None:
    """Also the partitions that it has no record for, or they would go on without it."""
    with_two_pages(task)
    task.wait(6)
    task.look(logs(task, 10, 10))
    task.wait(1)
    assert silence_in(task.look(logs(task, 11, 10))) is not None
    frames = task.take(page("c", "u", T + 3 * SECOND))
    assert silence_in(frames) is None
    assert all(frame.read == task.offset for frame in frames)


def test_one_look_after_a_long_time_is_no_growth_within_the_silence(task: LiveSessions) -> None:
    """Of two looks, the first may be of long ago: what was written between them may have come before the silence."""
    with_two_pages(task)
    task.wait(6)
    assert task.look(logs(task, 10, 10), logs(task, 50, 50)) == []
    task.wait(1)
    assert task.look(logs(task, 50, 50)) == []
