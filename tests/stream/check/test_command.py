"""`prectr check` as it is called: exit codes, screen, JSON."""

import json
from pathlib import Path

import pytest

import prectr as prectr_package
from testkit.command import prectr, write_log
from tests.kit.stages.events import MINUTE, SECOND, T, click, page


def log_lines(pages: int = 60) -> list[bytes]:
    lines = []
    for number in range(pages):
        lines += [page(f"r{number}", f"u{number % 12}", T + number * MINUTE, items=("a", "b", "c"))]
        lines += [click(f"r{number}", f"u{number % 12}", T + number * MINUTE + 5 * SECOND)]
    return lines


def test_a_sound_log_is_told_on_one_screen_with_exit_code_0(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", log_lines())
    done = prectr("check", log, "--models", "lr", "--json", tmp_path / "check.json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) <= 45
    assert "60 pages, 60 clicks; all lines valid" in done.stdout
    assert "The log is ready to replay." in done.stdout
    report = json.loads((tmp_path / "check.json").read_bytes())
    assert report["ready"] is True
    assert report["clicks"]["configured"] == {"window_seconds": 120.0, "joined": 60, "joined_if_sorted": 60}
    assert report["estimate"]["sample_pages"] == 60
    assert list(report["estimate"]["models"]) == ["lr"]
    assert report["estimate"]["models"]["lr"] > 0 < report["estimate"]["stages"]


def test_an_unsorted_log_ends_with_exit_code_1_and_says_what_to_do(tmp_path: Path) -> None:
    lines = log_lines()
    log = write_log(tmp_path / "log.jsonl", lines[::2] + lines[1::2])
    done = prectr("check", log, "--no-estimate", "--json", tmp_path / "check.json")
    assert done.returncode == 1
    assert "60 if it were sorted" in " ".join(done.stdout.split())
    assert "ORDER BY ts" in done.stdout
    assert "The log is not ready to replay: 1 problem." in done.stdout
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "check.json").read_bytes())["ready"] is False


def test_control_characters_of_a_log_are_escaped(tmp_path: Path) -> None:
    lines = [*log_lines(), b'{"type": "impression", "\x1b[31m": 1}', page("r", "\x1b]0;title\x07", T + 61 * MINUTE)]
    lines += [page(f"s{number}", "\x1b]0;title\x07", T + 61 * MINUTE, query="\x1b[2J") for number in range(200)]
    done = prectr("check", write_log(tmp_path / "log.jsonl", lines), "--no-estimate")
    assert "\x1b" not in done.stdout + done.stderr
    assert "]0;title" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.jsonl"], 1, "none.jsonl"),
        (["log.csv"], 2, "unknown file type"),
        (["log.jsonl", "--models", "lr", "--no-estimate"], 2, "leave out --no-estimate"),
        (["log.jsonl", "--models", "lr,none"], 2, "'none'"),
        (["log.jsonl", "--attribution-window", "soon"], 2, "soon"),
        ([], 2, "files"),
    ],
)
def test_wrong_use_is_one_line(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    write_log(tmp_path / "log.jsonl", log_lines(2))
    done = prectr("check", *(tmp_path / each if each.startswith(("log", "none.")) else each for each in arguments))
    assert done.returncode == code, done.stderr
    assert message in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_python_gives_the_same_report(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", log_lines())
    report = prectr_package.check(log, attribution_window="10s", partitions=2)
    assert report.ready
    assert report.clicks.configured.joined == 60
    assert report.clicks.configured.window_seconds == 10
    assert sum(report.partitions) == 120
