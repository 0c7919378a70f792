"""One run of the live system on mutated events, through loaders and from a producer of the benchmark's own."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from kafka import TopicPartition

from bench.mutations.generator.direct_records import DirectProducer, direct_records
from bench.mutations.generator.event_stream import EventStream
from bench.mutations.memory_trace import MemorySample, MemoryTrace
from bench.mutations.processes import STREAMS, TRAINER, LiveProcesses, ProcessResult
from bench.mutations.system import PARTITIONS, System
from bench.mutations.topic_contents import ContentSum
from bench.stream.driver import ProgramGroup
from prectr.state.errors import PrectrError

CHUNK: Final = 50_000
"""Mutated events between two loads."""
DIRECT: Final = 0.1
"""Of the mutated events: those that a producer sends."""
_FIRST_LINES: Final = 20
"""Events at the start of each file that are as they should be: a file that begins otherwise is refused as a whole."""
_ABORTED: Final = 40
_STALLED_SECONDS: Final = 120.0
_REMAINING: Final = 64
"""Offsets that need not be committed before the processes are stopped: markers of transactions have some."""


class LiveResult(msgspec.Struct, kw_only=True):
    """What was sent, and what the processes said.

    lines: lines of the files, counted in the files. loaded: events that the loaders reported as sent. direct, aborted:
    records that the producer sent, and those of its aborted transactions. seconds: from the first load until everything
    was processed. report: of the trainer.
    """

    lines: int = 0
    loaded: int = 0
    direct: int = 0
    aborted: int = 0
    codecs: list[str] = []
    shapes: dict[str, int] = {}
    seconds: float = 0.0
    processes: list[ProcessResult] = []
    memory: dict[str, list[MemorySample]] = {}
    report: dict[str, Any] = {}


class LiveRun:
    """Runs a system; `content` is what was sent, by the benchmark's own count."""

    def __init__(
        self,
        system: System,
        programs: ProgramGroup,
        folder: Path,
        stream: EventStream,
        log_progress: Callable[[float, str], None],
    ) -> None:
        """folder: for its files, states and checkpoints; must exist."""
        self.result = LiveResult()
        self.content = ContentSum()
        self._system = system
        self._folder = folder
        self._stream = stream
        self._log_progress = log_progress
        self._committed = 0
        self._trace = MemoryTrace(lambda: self._committed)
        self._processes = LiveProcesses(system, programs, folder, self._trace)
        self._partitions = [TopicPartition(system.topics.events, number) for number in range(PARTITIONS)]

    def run(self, events: int, seed: int) -> LiveResult:
        """Send this many mutated events to running processes; then stop them, and run them to the end of the log."""
        self._system.create_topics()
        for name in (*STREAMS, TRAINER):
            self._processes.start(name)
        self._trace.start()
        started = time.monotonic()
        try:
            self._feed(events, random.Random(seed))
            self._wait_until_lag(_REMAINING)
            self.result.seconds = time.monotonic() - started
            self._log_progress(1.0, "stopping")
            self._processes.stop()
            self._run_to_end()
        finally:
            self._trace.stop()
        self.result.memory = self._trace.samples
        return self.result

    def run_to_end(self, events: int, seed: int, *, misplaced: bool = False) -> LiveResult:
        """Send this many mutated events first; then run processes to the end of the log.

        misplaced: send all as records, to partitions that are not their users'.
        """
        self._system.create_topics()
        if misplaced:
            self._produce(events, random.Random(seed), misplaced=True)
        else:
            self._feed(events, random.Random(seed))
        self._run_to_end()
        return self.result

    def _run_to_end(self) -> None:
        for name in (*STREAMS, TRAINER):
            self._processes.start(name, "--until-end", "--flush")
        self._processes.wait_for_all()
        self.result.processes = self._processes.results
        self.result.report = json.loads((self._processes.run_dir / "report.json").read_bytes())

    def _feed(self, events: int, rng: random.Random) -> None:
        sent = number = 0
        while sent < events:
            count = min(CHUNK, events - sent)
            direct = int(count * DIRECT)
            self._load(self._folder / f"events-{number}.jsonl", count - direct)
            self._produce(direct, rng)
            sent, number = sent + count, number + 1
            self._log_progress(sent / events, f"{sent:,} events sent, {self._committed:,} records processed")
            self._wait_until_lag(CHUNK)

    def _produce(self, count: int, rng: random.Random, *, misplaced: bool = False) -> None:
        """Send mutated events as records, and some of them in an aborted transaction."""
        shapes = Counter(self.result.shapes)
        lines = self._stream.mutated(count)
        records = list(direct_records(rng, lines, PARTITIONS, shapes, misplaced=misplaced))
        for record in records:
            self.content.add(record.value or b"")
        producer = DirectProducer(self._system.connection, self._system.topics.events)
        producer.send(records, rng)
        producer.abort(records[:_ABORTED])
        producer.close()
        self.result.direct += producer.acknowledged
        self.result.aborted += producer.aborted
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
        program = self._processes.start_command("load", "load", path, *self._system.flags, "--json", report)
        while program.poll():
            self._update_progress()
        self._processes.wait("load", program)
        self.result.loaded += json.loads(report.read_bytes())["events"]
        path.unlink()

    def _wait_until_lag(self, lag: int) -> None:
        """Wait until the stage `join` has committed all but so many offsets of the events."""
        consumer = self._system.connection.consumer(group_id=None)
        ends = sum(consumer.end_offsets(self._partitions).values())
        consumer.close()
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
        self._processes.check_running()
        group = f"{self._system.prefix}join"
        found = self._system.connection.call_admin(lambda admin: admin.list_group_offsets([group]))[group]
        offsets = [found[partition].offset for partition in self._partitions if partition in found]
        self._committed = max(self._committed, sum(max(0, offset) for offset in offsets))
        time.sleep(1.0)
