"""Promises of progress: a bar on a terminal, plain log lines elsewhere, and a last word in both."""

import io
import logging
from collections.abc import Iterator

import pytest
from rich.console import Console

import prectr.ops.cli.console
from prectr.ops.cli.console import progress_bar, set_up_logging


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    screen = io.StringIO()
    monkeypatch.setattr(prectr.ops.cli.console, "console", Console(file=screen, force_terminal=True, width=100))
    return screen


@pytest.fixture
def no_handlers() -> Iterator[logging.Logger]:
    """Give the root logger, whose handlers are put back afterwards (pytest has its own there)."""
    root = logging.getLogger()
    kept, level = root.handlers, root.level
    yield root
    root.handlers = kept
    root.setLevel(level)


def test_elsewhere_than_on_a_terminal_progress_is_log_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prectr.ops.cli.console, "_LOG_INTERVAL", 0.0)
    with caplog.at_level(logging.INFO), progress_bar("replay", 200) as shown:
        shown.update(50, "12 pages")
        shown.update(200)
    assert caplog.messages[:2] == ["replay: 25 %, 12 pages", "replay: 100 %"]
    assert caplog.messages[2].startswith("replay: 100 %, done in ")


def test_log_lines_are_far_apart_and_nothing_to_do_is_done(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress_bar("empty", 0) as shown:
        for _ in range(1000):
            shown.update(0)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("empty: 100 %, done in ")


@pytest.mark.parametrize("total", [0, 200])
def test_on_a_terminal_progress_is_a_bar_with_a_note(terminal: io.StringIO, total: int) -> None:
    with progress_bar("replay", total) as shown:
        shown.update(total, "12 pages")
    text = terminal.getvalue()
    assert "replay" in text
    assert "100%" in text
    assert "12 pages" in text


def test_log_records_have_time_and_level_elsewhere_and_stand_above_the_bar_on_a_terminal(
    terminal: io.StringIO, no_handlers: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_handlers.handlers = []
    set_up_logging()
    logging.getLogger("prectr").warning("left out: README.md")
    assert "left out: README.md" in terminal.getvalue()
    no_handlers.handlers = []
    plain = io.StringIO()
    monkeypatch.setattr("sys.stderr", plain)
    monkeypatch.setattr(prectr.ops.cli.console, "console", Console(file=io.StringIO()))
    set_up_logging()
    logging.getLogger("prectr").warning("left out: README.md")
    assert plain.getvalue().endswith(" WARNING left out: README.md\n")
