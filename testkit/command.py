"""The `prectr` command, called as a user would call it."""

import gzip
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
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

_PRELOADED = [
    "pytest",
    "rich.table",
    "prectr.model.training.trainer",
    "prectr.ops.cli.main",
    "prectr.ops.report",
    "prectr.ops.training.quality_publisher",
    "prectr.ops.training.replay",
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


def prectr(*args: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in a process of its own; the caller checks exit code, stdout and stderr.

    The process is forked from a server that has loaded the command's code, which saves the seconds of imports.
    """
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
        outputs = (Path(folder, "stdout"), Path(folder, "stderr"))
        child = _fork_server().Process(
            target=_run_command, args=(arguments, environment(**settings), os.getcwd(), outputs)
        )
        child.start()
        child.join(TIMEOUT)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise subprocess.TimeoutExpired(["prectr", *arguments], TIMEOUT)
        out, err = (path.read_bytes().decode(errors="replace") if path.exists() else "" for path in outputs)
        return subprocess.CompletedProcess(["prectr", *arguments], child.exitcode, out, err)


@cache
def _fork_server() -> ForkServerContext:
    """Start the server that forks commands, with the environment that `environment` gives them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    own = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment())
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(own)
    return context


def _run_command(arguments: list[str], environ: dict[str, str], folder: str, outputs: tuple[Path, Path]) -> None:
    for number, path in enumerate(outputs, start=1):
        with path.open("wb") as out:
            os.dup2(out.fileno(), number)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = ["prectr", *arguments]
    from prectr.ops.cli.main import main  # noqa: PLC0415 (loaded in the server, not in the tests)

    main()


def run_replay_command(*args: str | Path, run_dir: Path, **settings: str) -> dict[str, Any]:
    """Run `prectr replay`, which must succeed, and return its report."""
    done = prectr("replay", *args, "--run-dir", run_dir, **settings)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    report: dict[str, Any] = json.loads((run_dir / "report.json").read_bytes())
    return report


def read_written_examples(path: Path) -> list[dict[str, Any]]:
    """Read a gzipped `--examples` file, one dict per page."""
    with gzip.open(path, "rb") as lines:
        return [json.loads(line) for line in lines]


def write_log(path: Path, lines: list[bytes]) -> Path:
    """Write lines as a log file; returns its path."""
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path
