"""The processes of a live system under test: started, watched, and ended as an operator would."""

import signal
import time
from pathlib import Path
from typing import Final

import msgspec

from bench.mutations.memory_trace import MemoryTrace
from bench.mutations.system import System
from bench.stream.driver import Program, ProgramGroup
from prectr.state.errors import PrectrError
from testkit.command import handles_signals

STREAMS: Final = ("stream 1", "stream 2")
TRAINER: Final = "trainer"
_POLL: Final = 0.1
_LOG_CHARACTERS: Final = 3000


class ProcessResult(msgspec.Struct, kw_only=True):
    """A process from start to exit. code: its exit code. cpu: seconds. peak: largest resident memory in MB."""

    name: str
    code: int
    cpu: float
    peak: float


class LiveProcesses:
    """The processes by name; `results` has those that have ended.

    A process that ends with another exit code than 0, or without being asked to, raises PrectrError.
    """

    def __init__(self, system: System, programs: ProgramGroup, folder: Path, trace: MemoryTrace) -> None:
        self.results: list[ProcessResult] = []
        self.run_dir = folder / "train"
        self._system = system
        self._programs = programs
        self._folder = folder
        self._trace = trace
        self._running: dict[str, Program] = {}

    def start(self, name: str, *flags: str) -> None:
        """Start a stream process or the trainer; with flags, `to the end` is added to the name that it is known by."""
        command: tuple[str | Path, ...] = ("train", "--run-dir", self.run_dir, "--model", "lr")
        if name != TRAINER:
            state = self._folder / f"state-{name[-1]}"
            command = ("stream", "--group-prefix", self._system.prefix, "--state-dir", state)
        known_as = f"{name}, to the end" if flags else name
        self._running[known_as] = self._start(known_as, *command, *self._system.flags, *flags)

    def start_command(self, name: str, *command: str | Path) -> Program:
        """Start a command that ends by itself; `wait` waits for it."""
        return self._start(name, *command)

    def wait(self, name: str, program: Program) -> None:
        """Wait until a process has ended, and record it."""
        while program.poll():
            time.sleep(_POLL)
        self._record(name, program)

    def check_running(self) -> None:
        """Raise an error if a process has ended."""
        for name, program in self._running.items():
            if not program.poll():
                self._record(name, program)
                raise PrectrError(f"{name} ended by itself, with exit code 0")

    def stop(self) -> None:
        """Stop all by SIGTERM."""
        for program in self._running.values():
            # A signal kills a process that does not handle it yet; a short run may end before all have started.
            while program.poll() and not handles_signals(program.pid):
                time.sleep(_POLL)
            program.signal(signal.SIGTERM)
        self.wait_for_all()

    def wait_for_all(self) -> None:
        """Wait until every process has ended."""
        for name, program in self._running.items():
            self.wait(name, program)
        self._running.clear()

    def _start(self, name: str, *command: str | Path) -> Program:
        program = self._programs.start_prectr(*command, settings={}, probe_first_record=False)
        self._trace.watch(name, program.pid)
        return program

    def _record(self, name: str, program: Program) -> None:
        code = -1 if program.code is None else program.code
        self.results.append(ProcessResult(name=name, code=code, cpu=program.cpu.total, peak=program.peak_mb))
        if code:
            log = program.log.read_text(encoding="utf-8", errors="replace")
            raise PrectrError(f"{name} ended with exit code {code}: {log[-_LOG_CHARACTERS:]}")
