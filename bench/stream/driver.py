"""Runs programs against the broker and measures them from outside: CPU, memory, when their output is readable."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

import msgspec

from bench.stream.broker import StableEndOffsets

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_SAMPLE_INTERVAL: Final = 0.1
_GRACE_SECONDS: Final = 20
"""Time for a program to exit after SIGTERM."""
_ROOT: Final = Path(__file__).parents[2]


class Cpu(NamedTuple):
    """CPU seconds of a program, including its exited children."""

    user: float
    system: float

    def __add__(self, other: object) -> "Cpu":
        """Sum over two programs."""
        if not isinstance(other, Cpu):
            return NotImplemented
        return Cpu(self.user + other.user, self.system + other.system)

    @property
    def total(self) -> float:
        """User and system time."""
        return self.user + self.system


NO_CPU: Final = Cpu(0.0, 0.0)


class Run(msgspec.Struct, kw_only=True):
    """A run of one or several processes on one log. Times in seconds, sizes in MB.

    wall: from the first record polled until the last example is readable with read_committed. cpu_user, cpu_system:
    from start to exit; startup_cpu: of that, before the first record. working_cpu: from the first record to the last
    example. start: from process start to the first record. first_output: from the first record to the first readable
    output. other_load_cores: cores used by other processes on the machine. check: `ok`, or the problem.
    """

    name: str
    pages: int
    events: int
    wall: float = 0.0
    cpu_user: float = 0.0
    cpu_system: float = 0.0
    startup_cpu: float = 0.0
    working_cpu: float = 0.0
    broker_cpu: float = 0.0
    peak_mb: float = 0.0
    state_mb: float = 0.0
    out_mb: float = 0.0
    start: float = 0.0
    first_output: float = 0.0
    other_load_cores: float = 0.0
    check: str = ""

    @property
    def cpu(self) -> float:
        """CPU seconds from start to exit."""
        return self.cpu_user + self.cpu_system

    @property
    def events_per_second(self) -> float:
        """Events per second."""
        return self.events / self.wall if self.wall else 0.0

    @property
    def events_per_cpu_second(self) -> float:
        """Events per CPU-second, from start to exit."""
        return self.events / self.cpu if self.cpu else 0.0

    @property
    def events_per_working_cpu_second(self) -> float:
        """Events per CPU-second, from the first record on."""
        return self.events / self.working_cpu if self.working_cpu else 0.0


class FirstRecord(NamedTuple):
    """Time at which a program received its first record, and its CPU time until then."""

    at: float
    cpu: Cpu


class Sample(NamedTuple):
    """Readable end offsets by partition at a time, and the CPU seconds of all programs and of the broker."""

    at: float
    ends: list[int]
    cpu: float
    broker: float


class Trace(NamedTuple):
    """Measurements of programs from start to exit. codes: exit codes; None where a program was killed."""

    started_at: float
    samples: list[Sample]
    first_records: list[FirstRecord]
    cpu: Cpu
    peak_mb: float
    other_load_cores: float
    codes: list[int | None]

    @property
    def first_record_at(self) -> float:
        """Time of the first record of any program; the start if no program reported one."""
        return min((mark.at for mark in self.first_records), default=self.started_at)

    @property
    def startup_cpu(self) -> float:
        """Total CPU seconds before the first records."""
        return sum(mark.cpu.total for mark in self.first_records)

    def first_readable(self, offsets: Mapping[int, int]) -> Sample | None:
        """First sample at which the records at these offsets, by partition, were readable."""
        for sample in self.samples:
            if all(sample.ends[partition] > offset for partition, offset in offsets.items()):
                return sample
        return None

    def first_output(self) -> Sample | None:
        """First sample with any readable output."""
        return next((sample for sample in self.samples if any(sample.ends)), None)


class Program:
    """A program in its own process group, which Ctrl-C does not reach. Its output goes to `log`."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        settings: Mapping[str, str],
        first_record_file: Path | None = None,
        folder: Path = _ROOT,
    ) -> None:
        self.log = log
        self.code: int | None = None
        self.killed = False
        self.started_at = time.time()
        self.cpu = NO_CPU
        self.peak_mb = 0.0
        self._first_record_file = first_record_file
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**clean_environment(), **settings},
                cwd=folder,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def poll(self) -> bool:
        """Update CPU time and memory; returns whether the program is running."""
        if self.code is not None:
            return False
        self.peak_mb = max(self.peak_mb, peak_megabytes(self.pid))
        ended, status, spent = os.wait4(self.pid, os.WNOHANG)
        if not ended:
            self.cpu = process_cpu(self.pid) or self.cpu
            return True
        self.cpu = Cpu(spent.ru_utime, spent.ru_stime)
        self.code = self._process.returncode = os.waitstatus_to_exitcode(status)
        with suppress(ProcessLookupError):
            # Processes left in its group must not outlive it.
            os.killpg(self.pid, signal.SIGKILL)
        return False

    @property
    def first_record(self) -> FirstRecord | None:
        """The first record, if the program has reported one."""
        if self._first_record_file is None or not self._first_record_file.exists():
            return None
        at, user, system = map(float, self._first_record_file.read_text(encoding="utf-8").split())
        return FirstRecord(at, Cpu(user, system))

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        if self.poll():
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait."""
        self.killed = True
        self.signal(signal.SIGKILL)
        while self.poll():
            time.sleep(0.01)

    def terminate(self) -> None:
        """Send SIGTERM and wait; kill the program if it does not exit in time."""
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while self.poll():
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(0.05)


class ProgramGroup:
    """Starts programs and keeps track of them, so that `kill_all` can end them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: list[Program] = []

    def start_prectr(
        self, *arguments: str | Path, settings: Mapping[str, str], probe_first_record: bool = True
    ) -> Program:
        """Start a `prectr` command."""
        return self.start_module(
            "prectr.ops.cli.main", *arguments, settings=settings, probe_first_record=probe_first_record
        )

    def start_module(
        self, name: str, *arguments: str | Path, settings: Mapping[str, str], probe_first_record: bool = True
    ) -> Program:
        """Start a Python module; probe_first_record: whether to record the time of its first record."""
        number = len(self._all)
        first_record_file = self._folder / f"mark-{number}"
        wrapper = ["bench.stream.first_record_probe", str(first_record_file)] if probe_first_record else []
        command = [sys.executable, "-m", *wrapper, name, *map(str, arguments)]
        return self.start(
            command, settings=settings, first_record_file=first_record_file if probe_first_record else None
        )

    def start(
        self,
        command: Sequence[str],
        *,
        settings: Mapping[str, str],
        first_record_file: Path | None = None,
        folder: Path = _ROOT,
    ) -> Program:
        """Start any program."""
        program = Program(command, self._folder / f"program-{len(self._all)}.log", settings, first_record_file, folder)
        self._all.append(program)
        return program

    def kill_all(self) -> None:
        """Kill all running programs."""
        for program in self._all:
            program.kill()


def sample_until_exit(programs: Sequence[Program], ends: StableEndOffsets, broker: int, limit: float) -> Trace:
    """Sample programs until all have exited. broker: its process id. limit: seconds after which they are killed."""
    started_at = time.time()
    own_cpu, machine_cpu = sum(os.times()[:2]), _machine_cpu_seconds()
    samples: list[Sample] = []
    broker_before = _cpu_seconds(broker)

    def sample() -> None:
        found = ends.now()
        if found is not None:
            cpu = sum(program.cpu.total for program in programs)
            samples.append(Sample(time.time(), found, cpu, _cpu_seconds(broker) - broker_before))

    while sum(program.poll() for program in programs):  # poll every program, without short-circuiting
        sample()
        if time.time() - started_at > limit:
            for program in programs:
                program.kill()
        time.sleep(_SAMPLE_INTERVAL)
    sample()
    cpu = sum((program.cpu for program in programs), NO_CPU)
    other_cpu = (
        _machine_cpu_seconds()
        - machine_cpu
        - cpu.total
        - (_cpu_seconds(broker) - broker_before)
        - (sum(os.times()[:2]) - own_cpu)
    )
    return Trace(
        started_at,
        samples,
        [first_record for program in programs if (first_record := program.first_record) is not None],
        cpu,
        sum(program.peak_mb for program in programs),
        max(0.0, other_cpu / (time.time() - started_at)),
        [None if program.killed else program.code for program in programs],
    )


def clean_environment() -> dict[str, str]:
    """The environment without PRECTR_* settings, and with one thread for numerical libraries."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRECTR_")}
    return kept | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def process_cpu(pid: int) -> Cpu | None:
    """CPU time of a process so far, including its exited children; None if it no longer exists."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    user, system, of_children, system_of_children = map(int, stat.rpartition(")")[2].split()[11:15])
    return Cpu((user + of_children) / _TICKS_PER_SECOND, (system + system_of_children) / _TICKS_PER_SECOND)


def peak_megabytes(pid: int) -> float:
    """Peak resident memory of a process in MB; 0 if it no longer exists."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


@contextmanager
def graceful_shutdown() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that everything is cleaned up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _cpu_seconds(pid: int) -> float:
    return (process_cpu(pid) or NO_CPU).total


def _machine_cpu_seconds() -> float:
    """Busy CPU seconds of the whole machine."""
    fields = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    user, nice, system, _, _, interrupts, soft_interrupts, _ = fields
    return (user + nice + system + interrupts + soft_interrupts) / _TICKS_PER_SECOND
