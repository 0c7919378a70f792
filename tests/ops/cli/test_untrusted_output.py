"""Untrusted text does not command the terminal; no encoding is too small for it, and no standard stream is needed."""

import io
import logging
import subprocess
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from prectr.ops.cli.log_format import LineFormatter
from prectr.ops.cli.output import EscapingConsole
from testkit.command import PRECTR, environment, write_log
from tests.kit.stages.events import MINUTE, T, click, page
from tests.kit.stages.replays import replay_to_end

ESCAPES = "\x1b]0;owned\x07\x1b[2J"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrusted")
    query, item = f"red [/x] [link=http://evil]{ESCAPES}", f"ïtem{ESCAPES}\nnext"
    lines = [page("r1", "u", T, query=query, items=[item]), click("r1", "u", T + 1000, item)]
    lines.append(page("r2", "u", T + 10 * MINUTE, query=query, items=[item]))
    replay_to_end([write_log(folder / "log.jsonl", lines)], folder / "run")
    return folder / "run"


def call(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environ = environment() | {"PYTHONIOENCODING": "utf-8", "COLUMNS": "150"} | settings
    return subprocess.run(
        [*PRECTR, *arguments],
        check=False,
        capture_output=True,
        encoding=environ["PYTHONIOENCODING"],
        timeout=60,
        env=environ,
    )


def show(run_dir: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    query = f"red [/x] [link=http://evil]{ESCAPES}"
    return call("state", "show", query, "--run-dir", str(run_dir), **environ)


def test_queries_and_items_of_a_log_are_shown_with_their_escapes_escaped(run_dir: Path) -> None:
    done = show(run_dir)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    # A query is shown in its normal form, which is in lower case.
    assert "red [/x] [link=http://evil]\\x1b]0;owned\\x07\\x1b[2j" in done.stdout
    assert "ïtem\\x1b]0;owned\\x07\\x1b[2J\\nnext" in done.stdout


def test_an_error_shows_what_it_quotes_with_escapes_escaped(tmp_path: Path) -> None:
    done = call("verify", "--run-dir", f"{tmp_path}/{ESCAPES}")
    assert done.returncode == 1
    assert done.stderr.startswith("prectr: ")
    assert "\\x1b]0;owned\\x07\\x1b[2J" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_the_encoding_of_the_output_lacks_is_escaped(run_dir: Path, encoding: str) -> None:
    done = show(run_dir, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "impressions" in done.stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_error(run_dir: Path, closed: str, tmp_path: Path) -> None:
    result = tmp_path / "found.json"
    command = f'"$0" "$@" {closed}'
    query = f"red [/x] [link=http://evil]{ESCAPES}"
    arguments = [*PRECTR, "state", "show", query, "--run-dir", str(run_dir), "--json", str(result)]
    done = subprocess.run(
        ["bash", "-c", command, *arguments], check=False, capture_output=True, timeout=60, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert b"Error" not in done.stderr
    # Neither stream was written into the file that was opened in its place.
    assert result.read_text().startswith("{")
    assert result.read_text().rstrip().endswith("}")


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    command = f"set -o pipefail; {' '.join(PRECTR)} settings | head -1"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, timeout=60, env=environment())
    assert done.stderr == b""
    assert done.returncode in (0, 1)


def test_a_console_escapes_controls_but_not_its_own_colours() -> None:
    out = io.StringIO()
    console = EscapingConsole(file=out, force_terminal=True, color_system="standard", width=40)
    console.print(Text(f"a{ESCAPES}b", style="red"))
    table = Table(f"head{ESCAPES}")
    table.add_row(Text("cell\x9b1m"))
    console.print(table)
    shown = out.getvalue()
    assert "\x1b[31m" in shown
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown
    assert "\x9b" not in shown
    # rich itself drops the bell.
    assert "a\\x1b]0;owned\\x1b[2Jb" in shown


def test_a_log_line_escapes_controls_and_keeps_its_lines() -> None:
    record = logging.LogRecord("prectr", logging.WARNING, __file__, 1, "%s", (f"a{ESCAPES}\nb",), None)
    assert LineFormatter().format(record).endswith("WARNING a\\x1b]0;owned\\x07\\x1b[2J\nb")
