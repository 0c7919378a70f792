"""A log that comes in parts, with pauses, and partitions that fall silent: the live system still equals the replay."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from testkit.command import write_log
from tests.kafka.live import Live, replay
from tests.kafka.parts import Lines, behind_the_line, home_of, in_three, lines_of, whole
from tests.kafka.worlds import adversarial, simulated
from tests.kit.stages.events import SECOND, T, page

pytestmark = [pytest.mark.usefixtures("broker"), pytest.mark.several]

PAUSE = 9.0
"""Seconds between two parts: longer than it takes a task to find that it has nothing to read, and to say so."""
ABSENT, SLEEPER = 2, 1
"""Partitions: of nobody, and of users who stay away for a while."""


def run(live: Live, parts: Sequence[Lines], *flags: str) -> None:
    """Two stream processes and a trainer go on through all parts and pauses, then are stopped as an operator stops
    them; then to the end."""
    live.create()
    running = [live.start_stream(name, *flags) for name in ("1", "2")]
    running.append(live.start_train("--cut-every", "2"))
    for number, part in enumerate(parts):
        live.load(write_log(live.folder / f"part-{number}.jsonl", part))
        time.sleep(PAUSE)
    for process in running:
        live.ask_to_stop(process)
    for process in running:
        live.ended(process)
    live.stream(2, "--flush")


@pytest.mark.parametrize(
    "idle", [(), pytest.param(("--idle-timeout", "6"), marks=pytest.mark.long)], ids=["default", "idle-6"]
)
def test_pauses_of_an_orderly_log_cut_anywhere_change_nothing(
    idle: tuple[str, ...], live: Live, tmp_path: Path
) -> None:
    """A pause of all is no silence of one: also with a short timeout nobody is left out for it."""
    parts = in_three(lines_of(simulated(tmp_path, pages=900, seed=8)), seed=1)
    run(live, parts, *idle)
    assert behind_the_line(live) == 0
    assert live.result("--flush") == replay(tmp_path, whole(tmp_path, parts))


def test_pauses_of_a_log_with_late_pages_cut_anywhere_change_nothing(live: Live, tmp_path: Path) -> None:
    parts = in_three(lines_of(adversarial(tmp_path, pages=600, seed=23)), seed=2)
    run(live, parts)
    assert behind_the_line(live) == 0
    assert live.result("--flush") == replay(tmp_path, whole(tmp_path, parts))


def test_partitions_that_are_quiet_or_fall_silent_midway_hold_nobody_up_and_change_nothing(
    live: Live, tmp_path: Path
) -> None:
    lines = lines_of(simulated(tmp_path, pages=900, seed=9))
    parts = in_three([line for line in lines if home_of(line, live.partitions) != ABSENT], seed=3)
    parts[1] = [line for line in parts[1] if home_of(line, live.partitions) != SLEEPER]
    run(live, parts)
    assert behind_the_line(live) == 0
    assert live.result("--flush") == replay(tmp_path, whole(tmp_path, parts))


@pytest.mark.long
def test_a_late_page_that_comes_first_after_a_pause_of_all_finds_its_place(live: Live, tmp_path: Path) -> None:
    """In the pause nobody goes on past the partition that is behind, to which the page comes.

    It closes one millisecond behind its partition's watermark, far before what the others have read.
    """
    users = {home_of(page("r", user, T), live.partitions): user for user in map(str, range(50))}
    times = {0: 100, 1: 60, 2: 100}
    first = [page(f"a{home}", user, T) for home, user in users.items()]
    second = [page(f"b{home}", user, T + times[home] * SECOND) for home, user in users.items()]
    third = [page("late", users[1], T - 200 * SECOND)]
    third += [page(f"c{home}", user, T + 300 * SECOND) for home, user in users.items()]
    parts = [first, second, third]
    run(live, parts)
    assert behind_the_line(live) == 0
    assert live.result("--flush") == replay(tmp_path, whole(tmp_path, parts))


def test_what_comes_behind_the_line_is_counted_in_the_report(live: Live) -> None:
    """After the idle timeout, while others go on, nobody waits for a page that is open in a silent partition."""
    users = {home_of(page("r", user, T), live.partitions): user for user in map(str, range(50))}
    run(
        live,
        [
            [page(f"a{home}", user, T) for home, user in users.items()],
            [page(f"b{home}", users[home], T + 300 * SECOND) for home in (0, 2)],
        ],
        "--idle-timeout",
        "6",
    )
    live.ended(live.start_train("--until-end", "--flush"))
    report = json.loads((live.folder / "train" / "report.json").read_bytes())
    assert behind_the_line(live) == 1
    assert report["pages"] == 5
    assert report["out_of_order"] == 1
