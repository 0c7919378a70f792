"""Our stages and the bare loop, each on topics and state of its own, measured and checked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from bench.stream.broker import BenchBroker, StableEnds, System, disk_megabytes
from bench.stream.driver import Program, Programs, Run, Trace, watched
from bench.stream.oracle import Expected, checked, committed, expected
from bench.stream.workload import PARTITIONS, Workload, settings
from prectr.stream.kafka.client.client import Connection

_LIMIT_SECONDS = 120
_PAGES_A_SECOND = 500
"""Slower than this, after the first two minutes, a run is killed."""


@dataclass
class Bench:
    """What all runs share: the broker, a work folder, the programs started so far."""

    broker: BenchBroker
    folder: Path
    programs: Programs
    say: Callable[[str], None] = field(default=lambda note: None)
    """Tells whoever watches what is being done."""
    _made: int = 0
    _due: dict[Path, Expected] = field(default_factory=dict)

    @contextmanager
    def fresh(self, name: str) -> Iterator[tuple[System, Path]]:
        """Topics' names and a state folder that nobody has used; both are deleted at the end."""
        self._made += 1
        system = System(self.broker, f"{name}-{self._made}")
        state = self.folder / f"state-{self._made}"
        state.mkdir()
        yield system, state
        system.removed()
        rmtree(state)

    @property
    def connection(self) -> Connection:
        """To the broker."""
        return Connection(self.broker.address, wait=30)

    def due(self, workload: Workload) -> Expected:
        """What must come out of a log; worked out once."""
        if workload.path not in self._due:
            self.say("working out what must come out")
            self._due[workload.path] = expected(workload)
        return self._due[workload.path]

    def limit(self, workload: Workload) -> float:
        """Seconds that a run on a log may take."""
        return _LIMIT_SECONDS + workload.pages / _PAGES_A_SECOND


def called(processes: int) -> str:
    """What so many processes of ours are called."""
    return f"ours, {processes} process{'es' if processes > 1 else ''}"


def ours(bench: Bench, workload: Workload, processes: int) -> Run:
    """Both stages, as so many processes, from an empty state to the end of the log."""
    name = called(processes)
    with bench.fresh("ours") as (system, state):
        bench.say(f"{name}: loading")
        system.loaded(workload)
        bench.say(name)
        started = [stream(bench, system, state / str(number), workload) for number in range(processes)]
        trace = _watched(bench, system, started, workload)
        bench.say(f"{name}: checking")
        check = checked(system.connection, system.topics.examples, PARTITIONS, bench.due(workload))
        run = measured(name, workload, trace, check.ends)
        run.check = _ended(trace, started) or check.verdict
        run.state_mb = disk_megabytes(state)
        run.out_mb = system.size(system.topics.examples)
    return run


def stream(bench: Bench, system: System, state: Path, workload: Workload, *flags: str) -> Program:
    """Start a process of both stages that ends at the end of the log."""
    where: list[str | Path] = [*system.flags, "--group-prefix", system.prefix, "--state-dir", state]
    ending = ["--until-end", "--flush"]
    return bench.programs.prectr("stream", *where, *ending, *flags, settings=settings(workload))


def bare(bench: Bench, workload: Workload, way: str) -> Run:
    """The bare loop on the same log."""
    name = f"bare loop, {way}"
    with bench.fresh("bare") as (system, _):
        bench.say(f"{name}: loading")
        system.loaded(workload)
        bench.say(name)
        started = [
            bench.programs.module(
                "bench.stream.client_baseline", system.broker.address, system.prefix, way, settings={}
            )
        ]
        trace = _watched(bench, system, started, workload)
        ends: dict[int, int] = {}
        size = 0
        for record in committed(system.connection, system.topics.examples, PARTITIONS):
            ends[record.partition] = record.offset
            size += len(record.value)
        run = measured(name, workload, trace, ends)
        sent = workload.bytes - workload.events
        run.check = _ended(trace, started) or ("ok" if size == sent else f"{size:,} bytes out, not {sent:,}")
        run.out_mb = system.size(system.topics.examples)
    return run


def _watched(bench: Bench, system: System, started: Sequence[Program], workload: Workload) -> Trace:
    ends = StableEnds(system.connection, system.topics.examples)
    try:
        return watched(started, ends, bench.broker.pid, bench.limit(workload))
    finally:
        ends.close()


def measured(name: str, workload: Workload, trace: Trace, ends: Mapping[int, int]) -> Run:
    """The figures of a run. ends: by partition, the offset of the last record that counts."""
    run = Run(name=name, pages=workload.pages, events=workload.events)
    run.cpu_user, run.cpu_system = trace.cpu
    run.startup_cpu = trace.startup
    run.peak_mb, run.foreign = trace.peak_mb, trace.foreign
    run.start = trace.first_record - trace.begun
    first, last = trace.first_output(), trace.readable(ends) if ends else None
    if first is not None:
        run.first_output = first.at - trace.first_record
    if last is not None:
        run.wall = last.at - trace.first_record
        run.working_cpu = last.cpu - trace.startup
        run.broker_cpu = last.broker
    return run


def _ended(trace: Trace, programs: Sequence[Program]) -> str:
    """How programs failed; nothing where all ended well."""
    for code, program in zip(trace.codes, programs, strict=True):
        if code is None:
            return "did not end in time"
        if code:
            said = program.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return f"exit {code}: {said[-1] if said else 'without a word'}"
    return ""
