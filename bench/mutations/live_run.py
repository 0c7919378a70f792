"""One run of the live system on mutated events: two stream processes, a trainer, loaders and a producer of its own."""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from kafka import TopicPartition

from bench.mutations.direct_records import DirectProducer, direct_records
from bench.mutations.event_stream import EventStream
from bench.mutations.memory_trace import MemorySample, MemoryTrace
from bench.mutations.topic_contents import ContentSum
from bench.stream.broker import StreamSystem
from bench.stream.driver import Program, ProgramGroup
from bench.stream.workload import PARTITIONS
from prectr.state.errors import PrectrError
from testkit.command import handles_signals

CHUNK: Final = 50_000
"""Mutated events between two loads."""
DIRECT: Final = 0.1
"""Of the mutated events: those that a producer sends."""
_FIRST_LINES: Final = 20
"""Events at the start of each file that are as they should be: a file that begins otherwise is refused as a whole."""
_ABORTED: Final = 40
_STREAMS: Final = ("stream 1", "stream 2")
_TRAINER: Final = "trainer"
REPLAY: Final = "replay"
_POLL: Final = 0.1
_STALLED_SECONDS: Final = 120.0
_REMAINING: Final = 64
"""Offsets that need not be committed before the processes are stopped: markers of transactions have some."""


class ProcessResult(msgspec.Struct, kw_only=True):
    """A process from start to exit. code: its exit code. cpu: seconds. peak: largest resident memory in MB."""

    name: str
    code: int
    cpu: float
    peak: float


class LiveResult(msgspec.Struct, kw_only=True):
    """What was sent, and what the processes said.

    lines: line feeds in the files, and last lines without one. load: sums of what the loaders reported.
    direct, aborted: records that the producer sent, and those of its aborted transactions. seconds: from the first
    load until the system had read everything. report: of the trainer.
    """

    lines: int = 0
    load: dict[str, int] = {}
    rejected_at_load: dict[str, int] = {}
    direct: int = 0
    aborted: int = 0
    codecs: list[str] = []
    shapes: dict[str, int] = {}
    seconds: float = 0.0
    processes: list[ProcessResult] = []
    memory: dict[str, list[MemorySample]] = {}
    report: dict[str, object] = {}


class LiveRun:
    """Runs the system; `content` is what was sent, by the benchmark's own count."""

    def __init__(
        self,
        system: StreamSystem,
        programs: ProgramGroup,
        folder: Path,
        stream: EventStream,
        log_progress: Callable[[float, str], None],
    ) -> None:
        self.result = LiveResult()
        self.content = ContentSum()
        self._system = system
        self._programs = programs
        self._folder = folder
        self._stream = stream
        self._log_progress = log_progress
        self._running: dict[str, Program] = {}
        self._committed = 0
        self._trace = MemoryTrace(lambda: self._committed)
        self._ends = system.connection.consumer(group_id=None)
        self._partitions = [TopicPartition(system.topics.events, number) for number in range(PARTITIONS)]

    def run(self, events: int, seed: int) -> LiveResult:
        """Send this many mutated events, wait until they have been processed, and end the log."""
        self._system.create_topics()
        for name in (*_STREAMS, _TRAINER):
            self._start(name)
        self._trace.start()
        started = time.monotonic()
        try:
            self._feed(events, random.Random(seed))
            self._wait_until_lag(_REMAINING)
            self.result.seconds = time.monotonic() - started
            self._log_progress(1.0, "stopping")
            self._end_all(signal.SIGTERM)
            for name in (*_STREAMS, _TRAINER):
                self._start(name, "--until-end", "--flush")
            self._end_all()
        finally:
            self._trace.stop()
            self._ends.close()
        self.result.memory = self._trace.samples
        self.result.report = json.loads((self._folder / "train" / "report.json").read_bytes())
        return self.result

    def _feed(self, events: int, rng: random.Random) -> None:
        producer = DirectProducer(self._system.connection, self._system.topics.events)
        shapes: Counter[str] = Counter()
        sent = number = 0
        while sent < events:
            count = min(CHUNK, events - sent)
            direct = int(count * DIRECT)
            self._load(self._folder / f"events-{number}.jsonl", count - direct)
            records = list(direct_records(rng, self._stream.mutated(direct), PARTITIONS, shapes))
            for record in records:
                self.content.add(record.value or b"")
            producer.send(records, rng)
            producer.abort(records[:_ABORTED])
            sent, number = sent + count, number + 1
            self._log_progress(sent / events, f"{sent:,} events sent, {self._committed:,} records processed")
            self._wait_until_lag(CHUNK)
        producer.close()
        self.result.direct, self.result.aborted = producer.acknowledged, producer.aborted
        self.result.codecs, self.result.shapes = producer.codecs, dict(shapes)

    def _load(self, path: Path, count: int) -> None:
        """Write a file of mutated events and load it."""
        with path.open("wb") as out:
            for line in self._stream.untouched(_FIRST_LINES):
                out.write(line + b"\n")
            for line in self._stream.mutated(count):
                out.write(line + b"\n")
        with path.open("rb") as lines:
            for line in lines:
                self.result.lines += 1
                self.content.add(line.removesuffix(b"\n"))
        report = path.with_suffix(".load")
        program = self._programs.start_prectr(
            "load", path, *self._system.flags, "--json", report, settings={}, probe_first_record=False
        )
        self._trace.watch("load", program.pid)
        while program.poll():
            self._update_progress()
        self._record("load", program)
        loaded = json.loads(report.read_bytes())
        for name in ("events", "lines", "oversized"):
            self.result.load[name] = self.result.load.get(name, 0) + loaded[name]
        for reason, times in loaded["invalid"].items():
            self.result.rejected_at_load[reason] = self.result.rejected_at_load.get(reason, 0) + times
        path.unlink()

    def _start(self, name: str, *flags: str) -> None:
        command: tuple[str | Path, ...] = ("train", "--run-dir", self._folder / "train", "--model", "lr")
        if name != _TRAINER:
            state = self._folder / f"state-{name[-1]}"
            command = ("stream", "--group-prefix", self._system.prefix, "--state-dir", state)
        program = self._programs.start_prectr(
            *command, *self._system.flags, *flags, settings={}, probe_first_record=False
        )
        self._running[name] = program
        self._trace.watch(name, program.pid)

    def _end_all(self, number: signal.Signals | None = None) -> None:
        """Wait until every process has ended, after a signal if one is given."""
        for program in self._running.values():
            if number is not None:
                # Before it handles signals one would kill it; a short run may end before its processes have started.
                while program.poll() and not handles_signals(program.pid):
                    time.sleep(_POLL)
                program.signal(number)
        for name, program in self._running.items():
            while program.poll():
                time.sleep(_POLL)
            self._record(name, program)
        self._running.clear()

    def _record(self, name: str, program: Program) -> None:
        self.result.processes.append(process_result(name, program))
        if program.code:
            raise PrectrError(f"{name} ended with exit code {program.code}: {_last_lines(program)}")

    def _wait_until_lag(self, lag: int) -> None:
        """Wait until the stage `join` has committed all but so many offsets of the events."""
        ends = sum(self._ends.end_offsets(self._partitions).values())
        moved_at = time.monotonic()
        while ends - self._committed > lag:
            before = self._committed
            self._update_progress()
            if self._committed > before:
                moved_at = time.monotonic()
            if time.monotonic() - moved_at > _STALLED_SECONDS:
                raise PrectrError(f"no commit for {_STALLED_SECONDS:.0f} s; {ends - self._committed:,} offsets remain")

    def _update_progress(self) -> None:
        """Check that no process has ended, and fetch how far the stage `join` has come; takes a second."""
        for name, program in self._running.items():
            if not program.poll():
                self._record(name, program)
                raise PrectrError(f"{name} ended by itself, with exit code 0")
        self._committed = max(self._committed, self._fetch_committed())
        time.sleep(1.0)

    def _fetch_committed(self) -> int:
        group = f"{self._system.prefix}join"
        committed = self._system.connection.call_admin(lambda admin: admin.list_group_offsets([group]))[group]
        return sum(max(0, committed[partition].offset) for partition in self._partitions if partition in committed)


def process_result(name: str, program: Program) -> ProcessResult:
    """The result of a process that has ended."""
    code = -1 if program.code is None else program.code
    return ProcessResult(name=name, code=code, cpu=program.cpu.total, peak=program.peak_mb)


def _last_lines(program: Program) -> str:
    return program.log.read_text(encoding="utf-8", errors="replace")[-3000:]
