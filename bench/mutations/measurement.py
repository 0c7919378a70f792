"""The measurement: the live system on mutated events, then on misplaced ones, and what each is compared with."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.mutations.comparison import Comparison, compare
from bench.mutations.generator.event_stream import Composition, EventStream
from bench.mutations.generator.hypothesis_edits import edit_pool
from bench.mutations.live_run import LiveResult, LiveRun
from bench.mutations.processes import ProcessResult
from bench.mutations.system import PARTITIONS, System
from bench.mutations.verdict import (
    Check,
    memory_checks,
    process_checks,
    replay_checks,
)
from bench.stream.driver import ProgramGroup
from prectr.state.errors import PrectrError

_EVENTS_PER_EDIT: Final = 40
_MIN_EDITS: Final = 400
_MISPLACED: Final = 0.02
"""Of the mutated events: those that a second system has, in partitions that are not their users'."""
_STEADY_EVENTS: Final = 500_000
_POLL: Final = 0.2
REPLAY: Final = "replay"


class Result(msgspec.Struct, kw_only=True):
    """A whole run.

    edits: different edits that hypothesis made. live, misplaced: of the two systems. dead_letters: of both, by reason.
    unjudged: values whose validity the oracle took from the system.
    """

    seed: int
    edits: int
    composition: Composition
    live: LiveResult
    misplaced: LiveResult
    dead_letters: dict[str, int]
    unjudged: int
    checks: dict[str, list[Check]]
    seconds: float


class Measurement:
    """Runs both systems on a broker and compares each with replay, oracle and topics."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path, log_progress: Callable[[float, str], None]) -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._folder = folder
        self._log_progress = log_progress
        self._programs = ProgramGroup(folder)

    def run(self, events: int, seed: int) -> Result:
        """Run everything with this many mutated events."""
        started = time.monotonic()
        try:
            self._log_progress(0.0, "making edits with hypothesis")
            edits = edit_pool(max(_MIN_EDITS, events // _EVENTS_PER_EDIT), seed)
            stream = EventStream(seed, edits)
            misplaced_events = round(events * _MISPLACED)
            system, run = self._new_run("main", stream)
            live = run.run(events - misplaced_events, seed)
            compared = self._compare(system, run)
            self._log_progress(1.0, "replaying the records")
            replay, replayed = self._replay(compared.topics.events.logs)
            live.processes.append(replayed)
            other_system, other_run = self._new_run("misplaced", stream)
            self._log_progress(1.0, "misplaced events")
            misplaced = other_run.run_to_end(misplaced_events, seed, misplaced=True)
            other = self._compare(other_system, other_run)
        finally:
            self._programs.kill_all()
        return Result(
            seed=seed,
            edits=len({repr(edit) for edit in edits}),
            composition=stream.composition,
            live=live,
            misplaced=misplaced,
            dead_letters=dict(compared.topics.dead_letters.reasons + other.topics.dead_letters.reasons),
            unjudged=compared.unjudged + other.unjudged,
            checks={
                "live system": [*compared.checks, *replay_checks(live, replay)],
                "misplaced events": other.checks,
                "processes": process_checks([live, misplaced], sorted(self._folder.glob("program-*.log"))),
                # A short run never leaves the start, when memory grows.
                "memory": memory_checks(live) if events >= _STEADY_EVENTS else [],
            },
            seconds=time.monotonic() - started,
        )

    def _new_run(self, name: str, stream: EventStream) -> tuple[System, LiveRun]:
        folder = self._folder / name
        folder.mkdir()
        system = System(self._bootstrap, f"{self._prefix}{name}.")
        return system, LiveRun(system, self._programs, folder, stream, self._log_progress)

    def _compare(self, system: System, run: LiveRun) -> Comparison:
        self._log_progress(1.0, "reading the topics, computing the outcomes by the oracle")
        return compare(system, run, self._folder)

    def _replay(self, logs: list[Path]) -> tuple[dict[str, Any], ProcessResult]:
        """Replay the records of a topic; returns the report, and what the process took."""
        out = self._folder / "replay"
        flags = ("--run-dir", out, "--model", "lr", "--partitions", str(PARTITIONS))
        program = self._programs.start_prectr("replay", *logs, *flags, settings={}, probe_first_record=False)
        while program.poll():
            time.sleep(_POLL)
        if program.code:
            raise PrectrError(f"replay ended with exit code {program.code}: {program.log.read_text()[-3000:]}")
        report: dict[str, Any] = json.loads((out / "report.json").read_bytes())
        return report, ProcessResult(name=REPLAY, code=0, cpu=program.cpu.total, peak=program.peak_mb)
