"""`python -m bench.mutations`: a million mutated events through the live system on a real broker."""

import json as json_module
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console

from bench.mutations.event_stream import EventStream
from bench.mutations.hypothesis_edits import edit_pool
from bench.mutations.live_run import REPLAY, LiveRun, process_result
from bench.mutations.page import RESULTS, Result, console_tables, render_page
from bench.mutations.topic_contents import count_examples, read_dead_letters, read_events
from bench.mutations.verdict import conservation_checks, process_checks, replay_checks
from bench.stream.broker import StreamSystem, running_broker
from bench.stream.driver import Program, ProgramGroup, graceful_shutdown
from bench.stream.workload import PARTITIONS
from prectr.ops.cli.console import progress_bar, set_up_logging
from prectr.state.errors import PrectrError
from testkit.provenance import command_line

_EVENTS_PER_EDIT: Final = 40
_MIN_EDITS: Final = 400
_SYSTEM: Final = "mutations"


def main(
    events: Annotated[
        int, typer.Option(min=1000, help="Mutated events; valid ones are sent between them.")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed of the events and their mutations.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write bench/results/mutations.md.")] = False,
) -> None:
    """Send mutated events through `load`, and as records, to two stream processes and a trainer; account for each.

    Exit code 1 if a check fails.
    """
    set_up_logging()
    # The client warns about every tenth of a second without CPU time, which is expected on a loaded machine.
    logging.getLogger("kafka").setLevel(logging.ERROR)
    with graceful_shutdown(), tempfile.TemporaryDirectory(prefix="prectr-mutations-") as folder:
        result = measure(Path(folder), events, seed, command_line("bench.mutations", sys.argv[1:]))
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    if write:
        RESULTS.write_text(render_page(result), encoding="utf-8")
    Console(width=None if sys.stdout.isatty() else 150).print(*console_tables(result))
    if failed := [each.name for each in result.checks if not each.holds]:
        raise PrectrError(f"{len(failed)} of {len(result.checks)} checks failed: {', '.join(failed)}")


def measure(folder: Path, events: int, seed: int, command: str) -> Result:
    """Run the live system and the replay of its records, and compare."""
    started = time.monotonic()
    with running_broker(folder / "broker") as broker, ExitStack() as stack:
        programs = ProgramGroup(folder)
        stack.callback(programs.kill_all)
        system = StreamSystem(broker, _SYSTEM)
        with progress_bar("bench.mutations", 1.0) as shown:
            shown.update(0.0, "making edits with hypothesis")
            edits = edit_pool(max(_MIN_EDITS, events // _EVENTS_PER_EDIT), seed)
            stream = EventStream(seed, edits)
            run = LiveRun(system, programs, folder, stream, shown.update)
            live = run.run(events, seed)
            shown.update(1.0, "reading the topics")
            log, topics = folder / "records.jsonl", system.topics
            found = read_events(system.connection, topics.events, PARTITIONS, log)
            dead_letters = read_dead_letters(system.connection, topics.dead_letters, PARTITIONS, found)
            examples = count_examples(system.connection, topics.examples, PARTITIONS)
            shown.update(1.0, "replaying the records")
            replay, program = _replay(programs, folder, log)
            live.processes.append(process_result(REPLAY, program))
        checks = [
            *conservation_checks(live, run.content, found, dead_letters, examples),
            *replay_checks(live, replay),
            *process_checks(live, sorted(folder.glob("program-*.log"))),
        ]
    return Result(
        command=command,
        seed=seed,
        edits=len({repr(edit) for edit in edits}),
        composition=stream.composition,
        live=live,
        dead_letters=dict(dead_letters.reasons),
        checks=checks,
        seconds=time.monotonic() - started,
    )


def _replay(programs: ProgramGroup, folder: Path, log: Path) -> tuple[dict[str, Any], Program]:
    """Replay the records of the topic; returns the report."""
    out = folder / "replay"
    flags: Sequence[str | Path] = ("--run-dir", out, "--model", "lr", "--partitions", str(PARTITIONS))
    program = programs.start_prectr("replay", log, *flags, settings={}, probe_first_record=False)
    while program.poll():
        time.sleep(0.2)
    if program.code:
        raise PrectrError(f"replay ended with exit code {program.code}: {program.log.read_text()[-3000:]}")
    report: dict[str, Any] = json_module.loads((out / "report.json").read_bytes())
    return report, program
