"""The `prectr` command, called as a user would call it."""

import gzip
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

INSTALLED = Path(sys.executable).with_name("prectr")
PRECTR = (
    [str(INSTALLED)] if INSTALLED.exists() else [sys.executable, "-c", "from prectr.ops.cli.main import main; main()"]
)

TIMEOUT = 300
"""Seconds after which a command counts as hanging."""

_PAGE_FIELDS = ("request_id", "user_id", "query", "ts", "items", "query_stats", "user_stats", "user_activity")
_ITEM_FIELDS = ("item_id", "click", "relevance")

_PRELOADED = [
    "pytest",
    "rich.table",
    "prectr.model.training.trainer",
    "prectr.ops.cli.main",
    "prectr.ops.report",
    "prectr.ops.training.quality_publisher",
    "prectr.ops.training.replay",
    "prectr.stream.kafka.ingest.run",
    "prectr.stream.kafka.io.log_loader",
    "prectr.stream.kafka.io.sink_runner",
    "prectr.stream.kafka.tasks.worker",
    "prectr.stream.replay.verify",
    "prectr.stream.simulator",
    "testkit.command",
]
"""What commands import. A module that is missing here only costs time, since the server ignores it."""

_READ_ON_IMPORT = frozenset({"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "OMP_NUM_THREADS"})
"""Variables that the preloaded modules have read already, so that a forked command would not see a change."""


def environment(**settings: str) -> dict[str, str]:
    """The environment without any PRECTR_* setting except these."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PRECTR_")}
    return plain | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"} | settings


class RunningCommand:
    """A command in the background, in a process of its own, with the part of Popen's interface that tests use.

    The process is forked from a server that has loaded the command's code, which saves the seconds of imports.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        stdout: Path | None,
        stderr: Path,
        environ: dict[str, str],
        module: str = "prectr.ops.cli.main",
    ) -> None:
        """Start `main()` of a module. stdout: None discards it."""
        self.args = ["prectr", *map(str, arguments)]
        for output in (stdout, stderr):
            if output is not None:
                # The process opens them itself, a moment after this returns; until then they can be read as empty.
                output.touch()
        self._process = _fork_server().Process(
            target=_run_command, args=(module, self.args, environ, os.getcwd(), stdout or Path(os.devnull), stderr)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def prectr(*args: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in a process of its own; the caller checks exit code, stdout and stderr."""
    arguments = [str(arg) for arg in args]
    if _READ_ON_IMPORT & settings.keys():
        return subprocess.run(
            [*PRECTR, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            env=environment(**settings),
            check=False,
        )
    with tempfile.TemporaryDirectory(prefix="prectr-command-") as folder:
        out, err = Path(folder, "stdout"), Path(folder, "stderr")
        command = RunningCommand(arguments, stdout=out, stderr=err, environ=environment(**settings))
        try:
            code = command.wait(TIMEOUT)
        finally:
            command.kill()
        texts = [path.read_bytes().decode(errors="replace") for path in (out, err)]
        return subprocess.CompletedProcess(command.args, code, *texts)


def handles_signals(pid: int) -> bool:
    """Return whether a process has installed its handlers for the signals that stop it.

    Checks SIGTERM, since Python handles SIGINT from the start. Linux reports the handled signals as a bit mask.
    """
    with suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@cache
def _fork_server() -> ForkServerContext:
    """Start the server that forks commands, with the environment that `environment` gives them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    own, of_commands = dict(os.environ), environment()
    os.environ.clear()
    os.environ.update(of_commands)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(own)
    return context


def _run_command(
    module: str, arguments: list[str], environ: dict[str, str], folder: str, stdout: Path, stderr: Path
) -> None:
    for number, path in ((1, stdout), (2, stderr)):
        with path.open("wb") as out:
            os.dup2(out.fileno(), number)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = arguments
    importlib.import_module(module).main()


def run_replay_command(*args: str | Path, run_dir: Path, **settings: str) -> dict[str, Any]:
    """Run `prectr replay`, which must succeed, and return its report."""
    done = prectr("replay", *args, "--run-dir", run_dir, **settings)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    report: dict[str, Any] = json.loads((run_dir / "report.json").read_bytes())
    return report


def read_written_examples(path: Path) -> list[dict[str, Any]]:
    """Read a gzipped `--examples` file, one dict per page, of the fields that `stated_fields` returns."""
    with gzip.open(path, "rb") as lines:
        return [stated_fields(json.loads(line)) for line in lines]


def stated_fields(line: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a line that the events, their labels and the totals define, without the later additions."""
    stated = {name: line[name] for name in _PAGE_FIELDS}
    assert tuple(line)[: len(_PAGE_FIELDS)] == _PAGE_FIELDS
    return stated | {"items": [{name: item[name] for name in _ITEM_FIELDS} for item in line["items"]]}


def write_log(path: Path, lines: list[bytes]) -> Path:
    """Write lines as a log file; returns its path."""
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path
