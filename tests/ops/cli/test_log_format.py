"""Promises of the log: lines for a person or for a program, of the level asked for, and of nobody's searches."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from prectr.ops.cli import console
from prectr.ops.cli.console import LogSettings, is_interactive, log_settings, print_error, set_up_logging
from prectr.ops.cli.log_format import LogLine, decode_line, encode_line
from prectr.ops.live.run import LiveRun, make_processes
from prectr.ops.live.supervisor import ManagedProcess, RestartPolicy, supervise
from prectr.state.errors import UsageError
from prectr.state.snapshots.task_snapshots import task_log_fields
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from testkit.command import PRECTR, environment, prectr

PEOPLE = ("zebra-17", "quagga-23", "okapi-31")
WORDS = ("kingfisher wool", "heliotrope lamp", "obsidian kettle")


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., io.StringIO]]:
    """Set logging up in this process, and hear what it says; all is put back afterwards (pytest listens too)."""
    root = logging.getLogger()
    kept, level = root.handlers, root.level

    def capture(*settings: str) -> io.StringIO:
        screen = io.StringIO()
        root.handlers = []
        monkeypatch.setattr("sys.stderr", screen)
        monkeypatch.setattr(console, "console", Console(file=io.StringIO()))
        set_up_logging(*settings)
        return screen

    yield capture
    root.handlers = kept
    root.setLevel(level)
    log_settings.severity, log_settings.log_format = "info", "console"


def test_a_json_line_has_time_level_logger_message_and_where_it_is_of_a_task(
    listen: Callable[..., io.StringIO],
) -> None:
    stderr = listen("info", "json")
    before = datetime.now(UTC)
    logging.getLogger("prectr.stream.kafka.tasks.task").info("open at %d", 5, extra={"stage": "join", "partition": 3})
    logging.getLogger("prectr.ops").warning('two\nlines, "quoted"')
    first, second = map(json.loads, stderr.getvalue().splitlines())
    at = datetime.fromisoformat(first.pop("time"))
    assert 0 <= (at - before).total_seconds() + 0.001 < 60
    assert at.utcoffset() == before.utcoffset()
    expected = {
        "severity": "INFO",
        "logger": "prectr.stream.kafka.tasks.task",
        "message": "open at 5",
        "stage": "join",
    }
    assert first == expected | {"partition": 3}
    del second["time"]
    assert second == {"severity": "WARNING", "logger": "prectr.ops", "message": 'two\nlines, "quoted"'}


def test_a_json_line_carries_the_traceback_of_an_error_and_names_that_are_no_text(
    listen: Callable[..., io.StringIO],
) -> None:
    stderr = listen("info", "json")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("prectr.ops").exception("of %s", "file-\udcff")
    line = json.loads(stderr.getvalue())
    assert line["message"] == "of file-\\udcff"
    assert line["error"].startswith("Traceback")
    assert line["error"].endswith("ValueError: broken")


@pytest.mark.parametrize(
    ("severity", "logged"),
    [
        ("debug", ["debug", "info", "warning", "error", "theirs"]),
        ("info", ["info", "warning", "error", "theirs"]),
        ("warning", ["warning", "error", "theirs"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("form", ["console", "json"])
def test_the_severity_applies_to_our_logs_and_libraries_log_warnings_only(
    severity: str, logged: list[str], form: str, listen: Callable[..., io.StringIO]
) -> None:
    stderr = listen(severity, form)
    for each in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("prectr.state.store"), each)(each)
    logging.getLogger("fsspec").info("caches")
    logging.getLogger("fsspec").warning("theirs")
    lines = stderr.getvalue().splitlines()
    said = [json.loads(line)["message"] if form == "json" else line.split()[-1] for line in lines]
    assert said == logged


@pytest.mark.parametrize(("level", "form"), [("loud", "console"), ("info", "xml"), ("INFO", "json")])
def test_a_level_or_format_that_there_is_not_is_wrong_use(level: str, form: str) -> None:
    with pytest.raises(UsageError, match=r"--log-(level|format) \w+: must be one of (debug|console), "):
        set_up_logging(level, form)


def test_a_log_for_a_program_is_never_drawn_on(
    listen: Callable[..., io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    for form in ("console", "json"):
        listen("info", form)
        monkeypatch.setattr(console, "console", Console(file=io.StringIO(), force_terminal=True))
        assert is_interactive() == (form == "console")


def test_the_final_error_is_a_log_line(listen: Callable[..., io.StringIO]) -> None:
    stderr = listen()
    print_error("no broker")
    assert stderr.getvalue() == "prectr: no broker\n"
    stderr = listen("info", "json")
    print_error("no broker")
    line = decode_line(stderr.getvalue())
    assert line is not None
    assert (line.severity, line.logger, line.message) == ("ERROR", "prectr", "no broker")


def test_what_is_no_json_line_is_nothing() -> None:
    line = LogLine("now", "INFO", "prectr.ops", "all is well")
    assert decode_line(encode_line(line)) == line
    for other in ("", "{", '{"time": 5}', "2026-01-01 12:00:00 INFO all is well"):
        assert decode_line(other) is None


def test_a_task_is_named_by_its_folder() -> None:
    assert task_log_fields("join-12") == {"stage": "join", "partition": 12}
    assert task_log_fields("elsewhere") == task_log_fields("-3") == task_log_fields("a-b") == {}


def test_a_process_logs_as_its_parent_does() -> None:
    assert LogSettings("debug", "json").flags == ["--log-level=debug", "--log-format=json"]


def test_prectr_run_starts_every_process_with_its_own_way_to_log(tmp_path: Path) -> None:
    flags = LogSettings("debug", "json").flags
    run = LiveRun(
        connection=Connection("127.0.0.1:1"),
        topics=Topics(),
        group_prefix="",
        state_dir=tmp_path / "state",
        run_dir=tmp_path / "run",
        monitor_flags=[],
        log_flags=flags,
    )
    commands = {child.name: child._command for child in make_processes(run)}
    assert commands.keys() == {"stream-1", "train", "monitor"}
    for name, command in commands.items():
        # Behind `python -m …parent_watchdog`, before the command's name: they are flags of prectr itself.
        assert command[3:6] == [*flags, name.partition("-")[0]]


def test_a_supervisor_parses_the_json_logs_of_its_processes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warning = encode_line(LogLine("t", "WARNING", "prectr.stream.kafka.tasks.task_manager", "opening the tasks again"))
    passing = encode_line(LogLine("t", "INFO", "prectr", "all is well"))
    last = encode_line(LogLine("t", "ERROR", "prectr", "no such topic"))
    child = ManagedProcess(
        "stream-1", [], tmp_path / "log", may_exit=True, restart_policy=RestartPolicy(initial_delay=0.01)
    )
    program = f"import sys; sys.stderr.write({(warning + chr(10) + passing + chr(10) + last + chr(10))!r}); sys.exit(2)"
    child._command = [sys.executable, "-c", program]
    with pytest.raises(UsageError, match="stream-1: no such topic"), caplog.at_level(logging.WARNING, "prectr.ops"):
        supervise([child], stop=lambda: False)
    assert caplog.messages == ["stream-1: opening the tasks again"]


def searches(folder: Path) -> Path:
    """A log of searches, some of them broken, by people and with words that are found nowhere else."""
    log = folder / "log.jsonl"
    lines = []
    for number in range(60):
        person, words = PEOPLE[number % 3], WORDS[number % 3]
        ts = 1_700_000_000_000 + 10_000 * number
        item = {"item_id": f"i{number}", "title": f"{words} no {number}", "position": 1}
        about = {"request_id": f"r{number}", "user_id": person, "ts": ts}
        lines.append({"type": "impression", **about, "query": words, "items": [item]})
        lines.append({"type": "click", **about, "ts": ts + 1000, "item_id": f"i{number}"})
        if number % 10 == 0:
            # Refused: no request, no time, another page of that name, a click on what was never shown.
            lines.append({"type": "impression", "user_id": person, "query": words})
            lines.append({"type": "click", **about, "ts": "never", "item_id": words})
            lines.append({"type": "impression", **about, "query": f"{words} two", "items": [item]})
            lines.append({"type": "click", **about, "ts": ts + 2000, "item_id": words})
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + f'{{"user_id": "{PEOPLE[0]}", \n')
    return log


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_replay_logs_no_user_ids_or_queries(form: str, tmp_path: Path) -> None:
    flags = [*PRECTR, "--log-format", form]
    done = subprocess.run(
        [*flags, "replay", searches(tmp_path), "--run-dir", tmp_path / "run", "--model", "lr", "--metrics-port", "0"],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert report["outcomes"]["clicks"]["foreign"] > 0
    assert report["outcomes"]["pages"]["dead_letter"] > 0
    assert "replay: " in done.stderr
    for secret in (*PEOPLE, *WORDS, *(word for words in WORDS for word in words.split())):
        assert secret not in done.stderr
    if form == "json":
        assert [json.loads(line)["severity"] for line in done.stderr.splitlines()]


def test_severity_and_format_come_from_the_environment_and_flags_win(tmp_path: Path) -> None:
    missing = tmp_path / "missing.jsonl"
    loud = {"PRECTR_LOG_FORMAT": "json", "PRECTR_LOG_LEVEL": "warning"}
    done = prectr("replay", missing, "--run-dir", tmp_path / "run", **loud)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert str(missing) in json.loads(line)["message"]
    done = prectr("--log-format", "console", "replay", missing, "--run-dir", tmp_path / "run", **loud)
    assert done.stderr.startswith("prectr: ")
    done = prectr("--log-level", "loud", "replay", missing)
    assert done.returncode == 2
    assert "--log-level loud: must be one of debug, info, warning, error" in done.stderr
