"""The live system as commands against a broker, and a replay of the same log to compare it with."""

import json
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from kafka.errors import KafkaError

from prectr.state.errors import PrectrError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from testkit.command import (
    RunningCommand,
    environment,
    handles_signals,
    prectr,
    read_written_examples,
    run_replay_command,
)

PARTITIONS = 3
MODEL = "lr"
IN_ORDER = ("--order", "given")
"""The logs are out of order on purpose."""
SESSION_TIMEOUT = "3"
"""Seconds after which a dead process's tasks move on."""
CrashOrder = tuple[str, int] | Path
"""Kill a process at the n-th passing of a failpoint; or as a file specifies, once it exists (crashing.py)."""


class RunResult(NamedTuple):
    """What is compared of two runs over the same log."""

    hashes: dict[str, str]
    outcomes: dict[str, Any]
    examples: list[dict[str, Any]]


def result_of(report: dict[str, Any], examples: Path | None) -> RunResult:
    """The result of a run. examples: its file; None leaves it to their digest."""
    names = ("examples_sha256", "aggregates_sha256", "weights_sha256")
    written = [] if examples is None else read_written_examples(examples)
    return RunResult({name: report[name] for name in names}, report["outcomes"], written)


def replay_log(folder: Path, *log: Path, flush: bool = True, partitions: int = PARTITIONS) -> RunResult:
    """Replay a log."""
    out = folder / "replay.jsonl.gz"
    flags: list[str | Path] = ["--model", MODEL, "--partitions", str(partitions), "--examples", out, *IN_ORDER]
    report = run_replay_command(*log, *flags, *([] if flush else ["--no-flush"]), run_dir=folder / "replay")
    return result_of(report, out)


@dataclass
class Live:
    """One system: its topics and groups have a prefix of their own, its folders lie in `folder`."""

    bootstrap: str
    prefix: str
    folder: Path
    partitions: int = PARTITIONS
    timeout: float = 300
    """Seconds that a process may take to end."""
    processes: list[RunningCommand] = field(default_factory=list)
    _logs: list[tuple[RunningCommand, Path]] = field(default_factory=list)

    @property
    def _system(self) -> list[str | Path]:
        return ["--bootstrap", self.bootstrap, "--topic-prefix", self.prefix]

    def create(self) -> None:
        self._check_success(prectr("topics", "create", *self._system, "--partitions", str(self.partitions)))

    def load(self, *log: Path) -> None:
        self._check_success(prectr("load", *log, *IN_ORDER, *self._system))

    def delete_topics(self) -> None:
        """Delete the topics."""
        topics = Topics(self.prefix).all
        with suppress(PrectrError, KafkaError):
            # A broker that is down, or a system that was never created, has none.
            Connection(self.bootstrap).call_admin(lambda admin: admin.delete_topics(list(topics)))

    def state_dir(self, name: str) -> Path:
        return self.folder / f"state-{name}"

    def start_stream(
        self,
        name: str = "1",
        *flags: str | Path,
        crash: CrashOrder | None = None,
        state_dir: Path | None = None,
        **settings: str,
    ) -> RunningCommand:
        """Start a stream worker; its state folder is `state_dir(name)` unless another is given."""
        return self._start(
            [
                *("stream", *self._system, "--group-prefix", self.prefix, "--session-timeout", SESSION_TIMEOUT),
                *("--state-dir", state_dir or self.state_dir(name), *flags),
            ],
            crash,
            **settings,
        )

    def stream(self, count: int = 1, *flags: str) -> None:
        """Run `count` stream workers to the present end of the log; all must succeed."""
        for process in [self.start_stream(str(number + 1), "--until-end", *flags) for number in range(count)]:
            self.wait_for_end(process)

    def start_train(self, *flags: str, run: str = "train", crash: CrashOrder | None = None) -> RunningCommand:
        out: list[str | Path] = ["--run-dir", self.folder / run, "--model", MODEL]
        return self._start(["train", *self._system, *out, *flags], crash)

    def start_ingest(self, *arguments: str | Path, crash: CrashOrder | None = None) -> RunningCommand:
        """Start to ingest foreign topics: TOPIC=MAPPING and flags."""
        return self._start(
            [
                *("ingest", *arguments, *self._system, "--group-prefix", self.prefix),
                *("--session-timeout", SESSION_TIMEOUT),
            ],
            crash,
        )

    def train_and_read(self, *flags: str, run: str = "train") -> RunResult:
        """Train to the end, write the examples, and return the result."""
        self.wait_for_end(self.start_train("--until-end", *flags, run=run))
        return self.read_result(run)

    def read_result(self, run: str = "train") -> RunResult:
        """Write the examples, and return the result of a trainer that has ended."""
        return result_of(self.read_report(run), self.examples())

    def read_report(self, run: str = "train") -> dict[str, Any]:
        """The report of a trainer that has ended."""
        report: dict[str, Any] = json.loads((self.folder / run / "report.json").read_bytes())
        assert report["late_records"] == 0
        return report

    def examples(self) -> Path:
        out = self.folder / "live.jsonl.gz"
        self._check_success(prectr("examples", *self._system, "--until-end", "--out", out))
        return out

    def wait_for_end(self, process: RunningCommand, code: int = 0) -> str:
        """Wait for a process; returns its stderr."""
        process.wait(self.timeout)
        err = self.stderr_of(process)
        assert process.returncode == code, f"exit {process.returncode}\n{err[-4000:]}"
        assert "Traceback" not in err, err[-4000:]
        return err

    def request_stop(self, process: RunningCommand, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop a process by a signal, as an operator would, once it handles signals.

        Before that a signal kills it; on a busy machine it takes long to load its code.
        """
        deadline = time.monotonic() + self.timeout
        while process.poll() is None and not handles_signals(process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)

    def stderr_of(self, process: RunningCommand) -> str:
        """Return the stderr of a process so far."""
        return self._log(process).read_text(errors="replace")

    def wait_for_log(self, process: RunningCommand, text: str) -> None:
        """Wait until a process has logged something."""
        deadline = time.monotonic() + self.timeout
        while text not in self.stderr_of(process):
            assert process.poll() is None, self.stderr_of(process)
            assert time.monotonic() < deadline, f"{text!r} was never logged"
            time.sleep(0.05)

    def kill(self, process: RunningCommand) -> None:
        """Kill a process, as a crash of its machine would."""
        process.send_signal(signal.SIGKILL)
        process.wait()

    def kill_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)

    def _start(self, command: list[str | Path], crash: CrashOrder | None, **settings: str) -> RunningCommand:
        # To a file: a full pipe would block the process.
        arguments = [str(part) for part in command]
        folders = [each for flag, each in pairwise(arguments) if flag in ("--state-dir", "--run-dir")]
        name = Path(folders[0]).name if folders else arguments[0]
        log = self.folder / "stderr" / f"{len(self._logs):02d}-{name}.log"
        log.parent.mkdir(exist_ok=True)
        process = RunningCommand(
            [*_crash_arguments(crash), *arguments],
            stdout=None,
            stderr=log,
            environ=environment(**settings),
            module="prectr.ops.cli.main" if crash is None else "tests.kafka.crashing",
        )
        self.processes.append(process)
        self._logs.append((process, log))
        return process

    def _log(self, process: RunningCommand) -> Path:
        return next(log for started, log in self._logs if started is process)

    def _check_success(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0, done.stdout + done.stderr


def _crash_arguments(crash: CrashOrder | None) -> list[str]:
    if crash is None:
        return []
    return [f"@{crash}"] if isinstance(crash, Path) else [crash[0], str(crash[1])]
