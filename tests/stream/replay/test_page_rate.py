"""How dense a log is, by its first files: against rates that the logs are made with."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from prectr.stream.readers import open_log
from prectr.stream.replay.page_rate import page_rate
from testkit.command import write_log
from tests.kit.stages.events import DAY, MINUTE, SECOND, T, click, page


def _pages(count: int, gap: int, start: int = T) -> Iterator[bytes]:
    for number in range(count):
        yield page(f"r{start}-{number}", "u", start + number * gap)
        yield click(f"r{start}-{number}", "u", start + number * gap + 1)


def _rate(*logs: Path) -> float | None:
    return page_rate(open_log([str(log) for log in logs]))


@pytest.mark.parametrize(("gap", "rate"), [(30 * SECOND, 2.0), (100, 600.0), (3 * MINUTE, 1 / 3)])
def test_the_rate_of_one_file_is_that_of_its_pages(tmp_path: Path, gap: int, rate: float) -> None:
    assert _rate(write_log(tmp_path / "log.jsonl", list(_pages(400, gap)))) == pytest.approx(rate)


def test_a_few_wrong_clocks_and_unreadable_lines_change_nothing(tmp_path: Path) -> None:
    lines = list(_pages(400, 30 * SECOND))
    lines[3:3] = [page("early", "u", T - 400 * DAY), b"{", b"\xff", page("late", "u", T + 90_000 * DAY)]
    assert _rate(write_log(tmp_path / "log.jsonl", lines)) == pytest.approx(2.0)


def test_files_of_one_time_add_up_and_later_ones_do_not_count(tmp_path: Path) -> None:
    """Dumps of three partitions, one shifted by half a gap, and the day after."""
    logs = [
        write_log(tmp_path / f"part-{number}.jsonl", list(_pages(100, 30 * SECOND, T + number * 10 * SECOND)))
        for number in range(3)
    ]
    logs.append(write_log(tmp_path / "tomorrow.jsonl", list(_pages(100, SECOND, T + DAY))))
    assert _rate(*logs) == pytest.approx(6.0)


def test_clicks_alone_in_the_first_file_say_nothing(tmp_path: Path) -> None:
    lines = list(_pages(100, 30 * SECOND))
    clicks = write_log(tmp_path / "clicks.jsonl", lines[1::2])
    assert _rate(clicks, write_log(tmp_path / "pages.jsonl", lines[::2])) == pytest.approx(2.0)
    assert _rate(clicks) is None


def test_too_few_pages_or_a_file_cut_off_are_no_rate_and_no_error(tmp_path: Path) -> None:
    assert _rate(write_log(tmp_path / "short.jsonl", list(_pages(10, SECOND)))) is None
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"\n".join(_pages(100, SECOND)))[:40])
    assert _rate(tmp_path / "cut.jsonl.gz") is None


def test_pages_of_one_instant_are_dense(tmp_path: Path) -> None:
    rate = _rate(write_log(tmp_path / "log.jsonl", list(_pages(100, 0))))
    assert rate is not None
    assert rate > 1e6
