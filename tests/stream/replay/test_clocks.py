"""Logs whose clocks are wrong, in a replay from file to examples.

The small log has 60 pages of 12 users in half an hour, the one of six hours 180; every page has one click.
"""

from pathlib import Path

import pytest

from prectr.stream.config import PipelineConfig
from prectr.stream.records import Example, decode_example
from tests.kit.stages.clock_logs import Lead, ahead, no_lead, six_hours, small_log, visits
from tests.kit.stages.disordered import StopReplay, stop_at_step, write_lines
from tests.kit.stages.events import HOUR, MINUTE, SECOND, T, page
from tests.kit.stages.replays import ReplayResult, replay_to_end

YEAR_2099 = 4_070_908_800_000 - T
YEAR_9999 = 253_402_000_000_000 - T


def replayed(tmp_path: Path, lines: list[bytes]) -> ReplayResult:
    log = write_lines(tmp_path / "log.jsonl", lines)
    return replay_to_end([log], tmp_path / "run", config=PipelineConfig(partitions=1))


def counts(result: ReplayResult) -> tuple[int, int, int]:
    """Pages emitted, dead letters, clicks joined; there are no other outcomes."""
    pages, clicks = result.outcomes.pages, result.outcomes.clicks
    assert pages.received == pages.emitted + pages.dead_letter
    assert clicks.received == clicks.joined
    assert result.dead_letters == ({"future_timestamp": pages.dead_letter} if pages.dead_letter else {})
    return pages.emitted, pages.dead_letter, clicks.joined


def in_zones(user: int, number: int) -> int:
    """Local time for UTC, in four zones."""
    return {1: 1, 4: 2, 7: 3, 9: 8}.get(user, 0) * HOUR


def first(pages: int, lead: int) -> Lead:
    return lambda user, number: lead if number < pages else 0


@pytest.mark.parametrize(
    ("lead", "expected"),
    [
        (no_lead, (180, 0, 180)),
        (first(1, YEAR_2099), (179, 1, 180)),
        (first(10, YEAR_2099), (170, 10, 180)),
        (first(30, 8 * HOUR), (150, 30, 180)),
        (ahead([0, 1], YEAR_9999), (154, 26, 180)),
        (ahead([0, 1], 8 * HOUR), (154, 26, 180)),
        (ahead([5, 7], 8 * HOUR), (155, 25, 180)),
        (ahead([0, 1, 2, 3], 8 * HOUR), (128, 52, 180)),
        (lambda user, number: YEAR_2099 if number == 179 else 0, (180, 0, 180)),
    ],
)
def test_wrong_clocks_in_six_hours(tmp_path: Path, lead: Lead, expected: tuple[int, int, int]) -> None:
    """A page that is ahead is a dead letter where the log goes on for an hour; all the others are examples.

    Of users 0 and 1, 8 h ahead, pages 0, 12 … 144 and 1, 13 … 145 are: the last right event is at 358 min, and page 156
    and 157 came within an hour of it. Of users 5 and 7 it is pages 5 … 149 and 7 … 139. What came in the last hour is
    examples, since nothing came after it by which it would be known to be wrong.
    """
    result = replayed(tmp_path, six_hours(lead))
    assert counts(result) == expected


@pytest.mark.parametrize("lead", [first(1, YEAR_2099), ahead([0, 1], YEAR_9999), ahead([0, 1], 8 * HOUR)])
def test_in_half_an_hour_nothing_is_lost(tmp_path: Path, lead: Lead) -> None:
    assert counts(replayed(tmp_path, small_log(lead))) == (60, 0, 60)


def test_users_in_several_zones_do_not_pull_the_time_from_one_to_the_next(tmp_path: Path) -> None:
    """The pages of eight users, and all that are an hour ahead, since the time comes within reach of those."""
    result = replayed(tmp_path, six_hours(in_zones))
    emitted, dead_letters, _ = counts(result)
    assert emitted + dead_letters == 180
    closed = [page for page in _examples(result) if page.closes_at <= T + 6 * HOUR]
    assert {page.user_id for page in closed} >= {f"u{user}" for user in (0, 1, 2, 3, 5, 6, 8, 10, 11)}
    assert len([page for page in closed if page.closes_at == page.ts + 2 * MINUTE]) == len(closed)


@pytest.mark.parametrize("place", [0, 1, 100, 360])
def test_ten_thousand_events_of_one_bot_are_dead_letters_and_no_more(tmp_path: Path, place: int) -> None:
    lines = six_hours()
    burst = [page(f"bot {number}", "bot", T + YEAR_2099 + number * SECOND) for number in range(10_000)]
    expected = (180, 10_000, 180) if place < 360 else (10_180, 0, 180)
    assert counts(replayed(tmp_path, lines[:place] + burst + lines[place:])) == expected


@pytest.mark.parametrize("users", [1, 2, 3, 12, 90])
@pytest.mark.parametrize("gap", [61 * MINUTE, 2 * HOUR, 30 * HOUR])
def test_a_sparse_log_stays_whole(tmp_path: Path, users: int, gap: int) -> None:
    """Each page is further ahead of the one before than max_clock_skew."""
    assert counts(replayed(tmp_path, visits(150, gap, users))) == (150, 0, 150)


@pytest.mark.parametrize("users", [1, 2, 12, 90])
def test_a_quiet_night_passes(tmp_path: Path, users: int) -> None:
    """Nothing is lost, and every page closes at its own time."""
    lines = visits(300, 30 * SECOND, users, lambda user, number: 9 * HOUR if number >= 150 else 0)
    result = replayed(tmp_path, lines)
    assert counts(result) == (300, 0, 300)
    assert all(page.closes_at == page.ts + 2 * MINUTE for page in _examples(result))


def test_a_clock_that_is_behind_closes_its_pages_as_late_ones(tmp_path: Path) -> None:
    """Unchanged: such a page is open until the watermark moves on, so its click finds it there or not at all."""
    result = replayed(tmp_path, six_hours(ahead([3], -8 * HOUR)))
    assert result.outcomes.pages.emitted == 180
    assert result.outcomes.clicks.joined == 180
    assert result.dead_letters == {}


def test_a_replay_that_is_stopped_and_resumed_decides_as_one_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prectr.stream.replay.runner.STEP_LINES", 40)
    lines = six_hours(ahead([0, 1, 2, 3], 8 * HOUR))
    whole = replayed(tmp_path, lines)
    log, config = write_lines(tmp_path / "again.jsonl", lines), PipelineConfig(partitions=1)
    for _ in range(7):
        with pytest.raises(StopReplay):
            replay_to_end([log], tmp_path / "again", config=config, checkpoint_interval=0, progress=stop_at_step(1))
    resumed = replay_to_end([log], tmp_path / "again", config=config)
    assert resumed == whole


def _examples(result: ReplayResult) -> list[Example]:
    return [decode_example(encoded) for encoded in result.emitted]
