"""The command `prectr`: loads the subcommand, and turns errors into one line on stderr and an exit code."""

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
from prectr.ops.cli.streams import open_standard_streams
from prectr.state.errors import PrectrError, UsageError
from prectr.state.system_limits import limit_advice

_TABLE: Final = {
    "convert": ("data", "Convert a log of another system (UBI, Metarank, CSV, JSON, Parquet) to events."),
    "check": ("data", "Validate a log before a replay: invalid events, order, unmatched clicks, duration."),
    "simulate": ("data", "Write a simulated search log with known click probabilities."),
    "replay": ("pipeline", "Turn a log of pages and clicks into training examples, a ranker and a report."),
    "demo": ("pipeline", "Simulate a log over a real catalogue, replay it with every model, and compare them."),
    "compare": ("pipeline", "Compare the models of two runs over the same log, with paired intervals."),
    "verify": ("pipeline", "Check that a run accounts for every event and that its offsets are consistent."),
    "state": ("pipeline", "Show the state of a run, such as the aggregates of a query."),
    "topics": ("data", "Create and check the topics of the live system."),
    "dlq": ("data", "List, show, export and retry dead letters."),
    "load": ("data", "Send a log to Kafka, keyed by user."),
    "export": ("data", "Write the events of the live system to files, as a log."),
    "ingest": ("data", "Turn topics of other programs into events, exactly once, by a mapping."),
    "stream": ("pipeline", "Run stream workers: the stages join and aggregate."),
    "train": ("training", "Train online on the examples of the live system."),
    "monitor": ("observe", "Serve the quality of all trainers by window of event time: page, JSON and metrics."),
    "run": ("pipeline", "Run the whole live system on this machine."),
    "label": ("training", "Label pairs of query and title with a teacher model, for pretrain."),
    "pretrain": ("training", "Train a text encoder on graded pairs and a teacher's labels."),
    "examples": ("data", "Write the committed examples of the live system to a file."),
    "top": ("observe", "Show pages, lag, outcomes, quality and tasks of the live system on one screen."),
    "doctor": ("observe", "Check a live system (broker, topics, state, snapshots, checkpoint) and suggest fixes."),
    "alerts": ("observe", "Print the alerting rules for Prometheus, with links to runbook and dashboards."),
    "rank": ("training", "Rank candidates with the newest checkpoint and state of a run, with an explanation."),
    "settings": ("pipeline", "Print every setting: value, default, range, meaning, and where the value came from."),
    "schema": ("data", "Print the JSON Schema of the events."),
}
"""By command: its folder in `ops.commands` and its summary. A command is imported only when it is called."""
COMMANDS: Final = {name: summary for name, (_, summary) in _TABLE.items()}

FAILED: Final = 1
USAGE_ERROR: Final = 2


class _LazyGroup(TyperGroup):
    """The commands of the table, loaded on demand."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:  # type: ignore[override]
        """Return a stub of the command for `--help`."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is called, and load it."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(COMMANDS)}"
            raise UsageError(f"there is no command {name!r}; {hint}")
        found, command, rest = super().resolve_command(ctx, args)
        return found, load_command(name) if name in COMMANDS else command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; print a message if Ctrl-C interrupts it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _print_error("interrupted; rerun the same command to resume from the last checkpoint, if it writes any")
            raise typer.Exit(FAILED) from None


def load_command(name: str) -> Any:
    """Import a command: the Typer app of its module if it has subcommands, else its function."""
    module = importlib.import_module(f"prectr.ops.commands.{_TABLE[name][0]}.{name}")
    own = getattr(module, "app", None)
    if own is None:
        own = typer.Typer(add_completion=False)
        own.command(name)(getattr(module, name))
    command = typer.main.get_command(own)
    _reflow(command)
    return command


def _reflow(command: Any) -> None:
    """Join the lines of the help texts of a command and its subcommands, so that they fill the terminal's width."""
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
        from prectr.stream.stages import described  # noqa: PLC0415 (not needed for --help)

        typer.echo(f"prectr {version('prectr-streaming')}, {described()}")
        raise typer.Exit


@app.callback()
def prectr(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    log_level: Annotated[
        str,
        typer.Option(
            envvar="PRECTR_LOG_LEVEL", metavar="SEVERITY", help="Lowest severity to log: debug, info, warning or error."
        ),
    ] = "info",
    log_format: Annotated[
        str,
        typer.Option(
            envvar="PRECTR_LOG_FORMAT", metavar="FORMAT", help="Log format: console or json (one object per line)."
        ),
    ] = "console",
) -> None:
    """Train a ranker online from the click log of a search engine, by replay or live on Kafka.

    Settings come from a TOML file (--config), then from the environment (such as
    PRECTR_ATTRIBUTION_WINDOW=600), then from flags. PRECTR_DEBUG=1 shows tracebacks.

    Example: prectr replay log.jsonl.gz --run-dir run
    """
    from prectr.ops.cli.console import set_up_logging  # noqa: PLC0415 (not needed for --help)

    set_up_logging(log_level, log_format)


def _with_limit(message: str, error: PrectrError) -> str:
    """The message, and the limit of the system that caused the error if it does not say so."""
    advice = limit_advice(error.__cause__) if error.__cause__ is not None else ""
    return message if not advice or advice in message else f"{message}: {advice}"


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 2 wrong use; an error is one line on stderr."""
    open_standard_streams()
    try:
        app()
    except PrectrError as error:
        _print_error(_with_limit(with_flags(error), error))
        sys.exit(USAGE_ERROR if isinstance(error, UsageError) else FAILED)
    except BrokenPipeError:
        # Whoever reads our output, such as head, has read enough; flushing at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except OSError as error:
        parts = (error.filename, error.strerror or error, limit_advice(error) or None)
        _print_error(": ".join(str(part) for part in parts if part is not None))
        sys.exit(FAILED)
    except Exception as error:  # noqa: BLE001 (the last resort: a bug)
        if limit := limit_advice(error):
            _print_error(f"{error}: {limit}")
            sys.exit(FAILED)
        _print_error(
            f"internal error: {type(error).__name__}: {error}; please report it with the traceback (PRECTR_DEBUG=1)"
        )
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
