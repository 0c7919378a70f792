"""The `prectr` command, called as a user would call it."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

INSTALLED = Path(sys.executable).with_name("prectr")
PRECTR = (
    [str(INSTALLED)] if INSTALLED.exists() else [sys.executable, "-c", "from prectr.ops.cli.main import main; main()"]
)

TIMEOUT = 300
"""Seconds; a command that takes longer hangs."""


def environment(**settings: str) -> dict[str, str]:
    """The environment without any PRECTR_* setting but these."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PRECTR_")}
    return plain | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"} | settings


def prectr(*args: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; its exit code, stdout and stderr are for the caller to judge."""
    return subprocess.run(
        [*PRECTR, *map(str, args)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
        env=environment(**settings),
        check=False,
    )


def run_replay_command(*args: str | Path, run_dir: Path, **settings: str) -> dict[str, Any]:
    """Run `prectr replay`, which must succeed, and return its report."""
    done = prectr("replay", *args, "--run-dir", run_dir, **settings)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    report: dict[str, Any] = json.loads((run_dir / "report.json").read_bytes())
    return report


def read_written_examples(path: Path) -> list[dict[str, Any]]:
    """Read a gzipped `--examples` file, one dict a page."""
    with gzip.open(path, "rb") as lines:
        return [json.loads(line) for line in lines]


def write_log(path: Path, lines: list[bytes]) -> Path:
    """Write lines as a log file; returns its path."""
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path
