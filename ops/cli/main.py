"""The command `prectr`: finds the subcommand, and turns what goes wrong into one clear line and an exit code."""

import difflib
import importlib
import os
import re
import sys
import traceback
from importlib.metadata import version
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from prectr.ops.cli.remedies import with_flags
from prectr.state.errors import PrectrError, UsageError

_TABLE: Final = {
    "convert": ("data", "Convert a log of another system (UBI, Metarank, CSV, JSON, Parquet) to events."),
    "simulate": ("data", "Write a simulated search log whose true click probabilities are known."),
    "replay": ("pipeline", "Turn a log of pages and clicks into training examples, a ranker and a report."),
    "demo": ("pipeline", "Simulate a log of a real catalogue, replay it with every model, and compare them."),
    "verify": ("pipeline", "Check that a run has accounted for every event and every file."),
    "state": ("pipeline", "Look into the state of a run, such as what it knows of a query."),
    "topics": ("data", "Make and check the topics of the live system on Kafka."),
    "dlq": ("data", "Look into the dead letters, and send them again."),
    "load": ("data", "Send a log into Kafka, keyed by user."),
    "stream": ("pipeline", "Run the two stages of the live system: one process of as many as there are partitions."),
    "train": ("training", "Train online on the live system's examples."),
    "monitor": ("observe", "Add up the quality of all trainers by windows of event time: a page, JSON and metrics."),
    "run": ("pipeline", "Run the whole live system on this machine, or a replay without a broker."),
    "label": ("training", "Let a teacher model grade pairs of query and title, for pretrain."),
    "pretrain": ("training", "Make a text encoder from graded pairs and a teacher's labels."),
    "examples": ("data", "Write the live system's committed examples to a file."),
    "top": ("observe", "Watch the live system: pages, lag, outcomes, quality and tasks on one screen."),
    "doctor": ("observe", "Look the live system over: broker, topics, state, checkpoint; what to do about each."),
    "rank": ("training", "Rank candidates by a run's newest checkpoint and state, and say why."),
    "settings": ("pipeline", "Print every setting: value, default, range, meaning, and where the value came from."),
    "schema": ("data", "Print the JSON Schema of the events."),
}
"""By command: its folder in `ops.commands`, and its summary. Its code is imported only when it is called."""
COMMANDS: Final = {name: summary for name, (_, summary) in _TABLE.items()}

FAILED: Final = 1
USAGE_ERROR: Final = 2


class _LazyGroup(TyperGroup):
    """The commands of the table, loaded on demand."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:  # type: ignore[override]
        """Return what `--help` needs to know of a command."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is called, and load it."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"the nearest is {near[0]!r}" if near else f"there are {', '.join(COMMANDS)}"
            raise UsageError(f"there is no command {name!r}; {hint}")
        found, command, rest = super().resolve_command(ctx, args)
        return found, load_command(name) if name in COMMANDS else command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C ends it with a message."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _print_error("interrupted; the same command goes on from the last cut, where it makes any")
            raise typer.Exit(FAILED) from None


def load_command(name: str) -> Any:
    """Import a command: the Typer app of its file, if it has commands of its own, or else its function."""
    module = importlib.import_module(f"prectr.ops.commands.{_TABLE[name][0]}.{name}")
    own = getattr(module, "app", None)
    if own is None:
        own = typer.Typer(add_completion=False)
        own.command(name)(getattr(module, name))
    command = typer.main.get_command(own)
    _reflow(command)
    return command


def _reflow(command: Any) -> None:
    """Let the help of a command, and of those within it, fill lines as wide as the terminal's, not as the source's."""
    command.help = re.sub(r"(?<!\n)\n(?!\n|Example)", " ", command.help or "")
    for inner in getattr(command, "commands", {}).values():
        _reflow(inner)


def _print_error(message: str) -> None:
    if os.environ.get("PRECTR_DEBUG", "") not in ("", "0"):
        traceback.print_exc()
    from prectr.ops.cli.console import print_error  # noqa: PLC0415 (not needed for --help)

    print_error(message)


app = typer.Typer(
    cls=_LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prectr {version('prectr-streaming')}")
        raise typer.Exit


@app.callback()
def prectr(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    log_level: Annotated[
        str,
        typer.Option(
            envvar="PRECTR_LOG_LEVEL", metavar="LEVEL", help="Least level to log: debug, info, warning, error."
        ),
    ] = "info",
    log_format: Annotated[
        str,
        typer.Option(
            envvar="PRECTR_LOG_FORMAT", metavar="FORMAT", help="Log for a person (console) or a program (json)."
        ),
    ] = "console",
) -> None:
    """A search engine's click log goes in; a ranker that has learned from it comes out.

    Settings come from a TOML file (--config), then from the environment (such as
    PRECTR_ATTRIBUTION_WINDOW=600), then from flags. PRECTR_DEBUG=1 shows tracebacks.

    Example: prectr replay log.jsonl.gz --run-dir run
    """
    from prectr.ops.cli.console import set_up_logging  # noqa: PLC0415 (not needed for --help)

    set_up_logging(log_level, log_format)


def main() -> None:
    """Entry point: exit code 0 done, 1 failed, 2 wrong use; whatever goes wrong is one line on stderr."""
    try:
        app()
    except PrectrError as error:
        _print_error(with_flags(error))
        sys.exit(USAGE_ERROR if isinstance(error, UsageError) else FAILED)
    except OSError as error:
        _print_error(": ".join(str(part) for part in (error.filename, error.strerror or error) if part is not None))
        sys.exit(FAILED)
    except Exception as error:  # noqa: BLE001 (the last resort: a mistake of ours)
        _print_error(
            f"a mistake in prectr itself: {type(error).__name__}: {error}; please report it, with PRECTR_DEBUG=1"
        )
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
