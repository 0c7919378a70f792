"""A log that arrives in parts, with pauses and idle partitions: the live system still equals the replay."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from testkit.command import write_log
from tests.kafka.live import Live, replay_log
from tests.kafka.parts import (
    Lines,
    join_parts,
    late_records,
    lines_of,
    partition_of_line,
    settling_pages,
    split_in_three,
)
from tests.kafka.worlds import adversarial, simulated
from tests.kit.stages.events import SECOND, T, page

pytestmark = [pytest.mark.usefixtures("broker"), pytest.mark.several]

PAUSE = 9.0
"""Seconds between two parts: longer than a task needs to find and report that it is idle."""
ABSENT, SLEEPER = 2, 1
"""Partitions: without any user, and of users who are absent for some time."""


def run(live: Live, parts: Sequence[Lines], *flags: str) -> None:
    """Run two stream workers and a trainer through all parts and pauses, stop them by a signal, then finish."""
    live.create()
    running = [live.start_stream(name, *flags) for name in ("1", "2")]
    running.append(live.start_train("--checkpoint-interval", "2"))
    for number, part in enumerate(parts):
        live.load(write_log(live.folder / f"part-{number}.jsonl", part))
        time.sleep(PAUSE)
    for process in running:
        live.request_stop(process)
    for process in running:
        live.wait_for_end(process)
    live.stream(2, "--flush")


@pytest.mark.parametrize("idle", [(), ("--idle-timeout", "6")], ids=["default", "idle-6"])
def test_pauses_of_an_orderly_log_split_anywhere_change_nothing(
    idle: tuple[str, ...], live: Live, tmp_path: Path
) -> None:
    """A pause of all partitions is not idleness of one: even with a short timeout, none is excluded for it."""
    parts = split_in_three(lines_of(simulated(tmp_path, pages=900, seed=8)), seed=1)
    run(live, parts, *idle)
    assert late_records(live) == 0
    assert live.train_and_read("--flush") == replay_log(tmp_path, join_parts(tmp_path, parts))


def test_pauses_of_a_log_with_late_pages_split_anywhere_change_nothing(live: Live, tmp_path: Path) -> None:
    parts = split_in_three(lines_of(adversarial(tmp_path, pages=600, seed=23)), seed=2)
    run(live, parts)
    assert late_records(live) == 0
    assert live.train_and_read("--flush") == replay_log(tmp_path, join_parts(tmp_path, parts))


def test_partitions_that_are_or_become_idle_hold_no_other_and_change_nothing(live: Live, tmp_path: Path) -> None:
    lines = lines_of(simulated(tmp_path, pages=900, seed=9))
    parts = split_in_three([line for line in lines if partition_of_line(line, live.partitions) != ABSENT], seed=3)
    parts[1] = [line for line in parts[1] if partition_of_line(line, live.partitions) != SLEEPER]
    run(live, parts)
    assert late_records(live) == 0
    assert live.train_and_read("--flush") == replay_log(tmp_path, join_parts(tmp_path, parts))


def test_a_late_page_that_comes_first_after_a_pause_of_all_keeps_its_order(live: Live, tmp_path: Path) -> None:
    """During the pause no partition advances past the slowest one, to which the page belongs.

    The page closes one millisecond after its partition's watermark, long before what the others have read.
    """
    users = {partition_of_line(page("r", user, T), live.partitions): user for user in map(str, range(50))}
    times = {0: 100, 1: 60, 2: 100}
    first = settling_pages(live.partitions) + [page(f"a{home}", user, T) for home, user in users.items()]
    second = [page(f"b{home}", user, T + times[home] * SECOND) for home, user in users.items()]
    third = [page("late", users[1], T - 200 * SECOND)]
    third += [page(f"c{home}", user, T + 300 * SECOND) for home, user in users.items()]
    parts = [first, second, third]
    run(live, parts)
    assert late_records(live) == 0
    assert live.train_and_read("--flush") == replay_log(tmp_path, join_parts(tmp_path, parts))


def test_late_records_are_counted_in_the_report(live: Live) -> None:
    """After the idle timeout, other partitions advance past a page that is pending in an idle one."""
    users = {partition_of_line(page("r", user, T), live.partitions): user for user in map(str, range(50))}
    settling = settling_pages(live.partitions)
    run(
        live,
        [
            settling + [page(f"a{home}", user, T) for home, user in users.items()],
            [page(f"b{home}", users[home], T + 300 * SECOND) for home in (0, 2)],
        ],
        "--idle-timeout",
        "6",
    )
    live.wait_for_end(live.start_train("--until-end", "--flush"))
    report = json.loads((live.folder / "train" / "report.json").read_bytes())
    assert late_records(live) == 1
    assert report["pages"] == len(settling) + 5
    assert report["late_records"] == 1
