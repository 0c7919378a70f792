"""The limits of the running processes, or of this shell: a process that is started here has the same."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.host.lock_holder import lock_holder
from prectr.ops.limits.process_limits import ProcessLimits, limits_of, open_file_count, own_limits

_MOST_USED: Final = 0.8
"""Share of the limit of open files from which it is a warning."""


def check_process_limits(state_dir: Path | None, run_dir: Path | None) -> Iterator[Finding]:
    """Check the processes that hold the state folders and the run folder; this one if there are none."""
    folders = [state_dir, *state_dir.glob("*")] if state_dir is not None else []
    holders = (lock_holder(folder / ".lock") for folder in [*folders, *([run_dir] if run_dir is not None else [])])
    processes = sorted({pid for pid in holders if pid is not None})
    for pid in processes:
        limits = limits_of(pid)
        if limits is not None:
            yield _finding(f"limits of process {pid}", limits, open_file_count(pid))
    if not processes:
        yield _finding("limits of this shell", own_limits(), None)


def _finding(name: str, limits: ProcessLimits, opened: int | None) -> Finding:
    files = f"{_text(limits.open_files)} open files"
    observed = files if opened is None else f"{opened:,} of {files}"
    if opened is not None and opened > _MOST_USED * limits.open_files:
        return Finding(
            name, "warning", observed, "raise the limit, by ulimit -n or LimitNOFILE= of a unit, and restart it"
        )
    if limits.file_size != sys.maxsize:
        observed += f", files of {limits.file_size:,} bytes at most"
        return Finding(name, "warning", observed, "lift that, by ulimit -f unlimited or LimitFSIZE=infinity of a unit")
    return Finding(name, "ok", observed)


def _text(limit: int) -> str:
    return "unlimited" if limit == sys.maxsize else f"{limit:,}"
