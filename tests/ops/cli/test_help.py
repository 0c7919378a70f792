"""Help: every command has an example of itself, and says of every option what it is."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from prectr.ops.cli.main import COMMANDS, app, load_command
from testkit.command import prectr


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its words, those within a command included."""
    yield "", typer.main.get_command(app)
    for name in COMMANDS:
        loaded = load_command(name)
        yield name, loaded
        yield from ((f"{name} {inner}", each) for inner, each in getattr(loaded, "commands", {}).items())


@pytest.fixture(scope="module")
def every() -> dict[str, Any]:
    return dict(commands())


def test_every_command_has_an_example_of_itself(every: dict[str, Any]) -> None:
    assert len(every) > len(COMMANDS)
    for name, command in every.items():
        examples = [line for line in (command.help or "").splitlines() if line.startswith("Example")]
        assert examples, name
        assert all(f"prectr {name}".strip() in example for example in examples), name


def test_every_option_of_an_example_is_one_of_the_command(every: dict[str, Any]) -> None:
    for name, command in every.items():
        known = {flag for option in command.params for flag in option.opts}
        inner = {flag for each in getattr(command, "commands", {}).values() for o in each.params for flag in o.opts}
        examples = [line for line in (command.help or "").splitlines() if line.startswith("Example")]
        used = {word for example in examples for word in example.split() if word.startswith("--")}
        if name:
            assert used <= known | inner, (name, used - known - inner)


def test_every_option_says_what_it_is(every: dict[str, Any]) -> None:
    for name, command in every.items():
        for option in command.params:
            assert (option.help or "").strip(), (name, option.name)


def test_help_fills_the_terminals_lines_not_the_sources() -> None:
    wide = prectr("dlq", "retry", "--help", COLUMNS="150").stdout
    assert "Lines of --file without a dead letter reference are sent on every call." in wide
    assert [line.strip() for line in wide.splitlines() if line.strip().startswith("Example")] == [
        "Example: prectr dlq retry --file dead-letters.jsonl --bootstrap localhost:9092 --dry-run"
    ]
    narrow = prectr("dlq", "retry", "--help", COLUMNS="70").stdout
    prose = narrow.partition("Usage")[2].partition("╭")[0]
    # A line is left half empty only where a paragraph ends.
    lines = [line.rstrip() for line in prose.splitlines()]
    assert all(len(line) > 35 or not after for line, after in zip(lines, [*lines[1:], ""], strict=True) if line)
