"""Runs of the stages and of the client baseline, each with its own topics and state, measured and checked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from bench.stream.broker import BenchBroker, StableEndOffsets, StreamSystem, disk_megabytes
from bench.stream.driver import Program, ProgramGroup, Run, Trace, sample_until_exit
from bench.stream.oracle import ExpectedOutput, check_topic, expected_output, read_committed
from bench.stream.workload import PARTITIONS, Workload, stage_settings
from prectr.stream.kafka.client.client import Connection

_BASE_TIMEOUT = 120
_MIN_PAGES_PER_SECOND = 500
"""A run that is slower, after the first two minutes, is killed."""


@dataclass
class StreamBench:
    """Shared by all runs: the broker, a work folder, the started programs, a callback for progress messages."""

    broker: BenchBroker
    folder: Path
    programs: ProgramGroup
    log_progress: Callable[[str], None] = field(default=lambda note: None)
    _count: int = 0
    _expected_outputs: dict[Path, ExpectedOutput] = field(default_factory=dict)

    @contextmanager
    def new_system(self, name: str) -> Iterator[tuple[StreamSystem, Path]]:
        """A system with unused topic names, and an empty state folder; both are deleted at the end."""
        self._count += 1
        system = StreamSystem(self.broker, f"{name}-{self._count}")
        state = self.folder / f"state-{self._count}"
        state.mkdir()
        yield system, state
        system.delete_topics()
        rmtree(state)

    @property
    def connection(self) -> Connection:
        """A connection to the broker."""
        return Connection(self.broker.address, connect_timeout=30)

    def expected_output_of(self, workload: Workload) -> ExpectedOutput:
        """The expected output of a log, cached."""
        if workload.path not in self._expected_outputs:
            self.log_progress("computing the expected output")
            self._expected_outputs[workload.path] = expected_output(workload)
        return self._expected_outputs[workload.path]

    def timeout_of(self, workload: Workload) -> float:
        """Time limit of a run on a log, in seconds."""
        return _BASE_TIMEOUT + workload.pages / _MIN_PAGES_PER_SECOND


def run_name(processes: int) -> str:
    """Name of a run with this number of our processes."""
    return f"ours, {processes} process{'es' if processes > 1 else ''}"


def run_prectr(bench: StreamBench, workload: Workload, processes: int) -> Run:
    """Run both stages in a number of processes, from empty state to the end of the log."""
    name = run_name(processes)
    with bench.new_system("ours") as (system, state):
        bench.log_progress(f"{name}: loading")
        system.load_workload(workload)
        bench.log_progress(name)
        programs = [start_stream_process(bench, system, state / str(number), workload) for number in range(processes)]
        trace = _sample_until_exit(bench, system, programs, workload)
        bench.log_progress(f"{name}: checking")
        check = check_topic(system.connection, system.topics.examples, PARTITIONS, bench.expected_output_of(workload))
        run = make_run(name, workload, trace, check.ends)
        run.check = _exit_problem(trace, programs) or check.verdict
        run.state_mb = disk_megabytes(state)
        run.out_mb = system.topic_megabytes(system.topics.examples)
    return run


def start_stream_process(
    bench: StreamBench, system: StreamSystem, state: Path, workload: Workload, *flags: str
) -> Program:
    """Start a process of both stages that exits at the end of the log."""
    system_flags: list[str | Path] = [*system.flags, "--group-prefix", system.prefix, "--state-dir", state]
    ending = ["--until-end", "--flush"]
    return bench.programs.start_prectr("stream", *system_flags, *ending, *flags, settings=stage_settings(workload))


def run_client_baseline(bench: StreamBench, workload: Workload, mode: str) -> Run:
    """Run the client baseline on the same log."""
    name = f"client baseline, {mode}"
    with bench.new_system("bare") as (system, _):
        bench.log_progress(f"{name}: loading")
        system.load_workload(workload)
        bench.log_progress(name)
        programs = [
            bench.programs.start_module(
                "bench.stream.client_baseline", system.broker.address, system.prefix, mode, settings={}
            )
        ]
        trace = _sample_until_exit(bench, system, programs, workload)
        ends: dict[int, int] = {}
        size = 0
        for record in read_committed(system.connection, system.topics.examples, PARTITIONS):
            ends[record.partition] = record.offset
            size += len(record.value)
        run = make_run(name, workload, trace, ends)
        sent = workload.bytes - workload.events
        run.check = _exit_problem(trace, programs) or ("ok" if size == sent else f"{size:,} bytes out, not {sent:,}")
        run.out_mb = system.topic_megabytes(system.topics.examples)
    return run


def _sample_until_exit(
    bench: StreamBench, system: StreamSystem, programs: Sequence[Program], workload: Workload
) -> Trace:
    ends = StableEndOffsets(system.connection, system.topics.examples)
    try:
        return sample_until_exit(programs, ends, bench.broker.pid, bench.timeout_of(workload))
    finally:
        ends.close()


def make_run(name: str, workload: Workload, trace: Trace, ends: Mapping[int, int]) -> Run:
    """Measurements of a run. ends: offset of the last record that counts, by partition."""
    run = Run(name=name, pages=workload.pages, events=workload.events)
    run.cpu_user, run.cpu_system = trace.cpu
    run.startup_cpu = trace.startup_cpu
    run.peak_mb, run.other_load_cores = trace.peak_mb, trace.other_load_cores
    run.start = trace.first_record_at - trace.started_at
    first, last = trace.first_output(), trace.first_readable(ends) if ends else None
    if first is not None:
        run.first_output = first.at - trace.first_record_at
    if last is not None:
        run.wall = last.at - trace.first_record_at
        run.working_cpu = last.cpu - trace.startup_cpu
        run.broker_cpu = last.broker
    return run


def _exit_problem(trace: Trace, programs: Sequence[Program]) -> str:
    """Describe how programs failed; empty if all succeeded."""
    for code, program in zip(trace.codes, programs, strict=True):
        if code is None:
            return "did not finish in time"
        if code:
            log_lines = program.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return f"exit {code}: {log_lines[-1] if log_lines else 'no output'}"
    return ""
