"""Room on the disks that the live system writes to, and whether it may write there."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prectr.ops.doctor.findings import Finding, Level

_GIB: Final = 1 << 30
_LITTLE: Final = 2 * _GIB
_TOO_LITTLE: Final = _GIB // 4
_FEW_INODES: Final = 10_000
_TOO_FEW_INODES: Final = 500


def check_disk(state_dir: Path | None, run_dir: Path | None, snapshots: str | None) -> Iterator[Finding]:
    """Look at the folders that are named; snapshots kept elsewhere than on a disk are not looked at."""
    if state_dir is not None:
        yield _folder("state folder", state_dir)
    if run_dir is not None:
        yield _folder("run folder", run_dir)
    local = None if snapshots is None else _local(snapshots)
    if local is not None:
        yield _folder("snapshots folder", local)


def _local(url: str) -> Path | None:
    scheme, found, rest = url.partition("://")
    if not found:
        return Path(url)
    return Path(rest) if scheme in ("file", "local") else None


def _folder(name: str, folder: Path) -> Finding:
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        advice = f"give the user of the process the right to write to {there}, or name another folder"
        return Finding(name, "error", f"{folder}: {there} cannot be written", advice)
    disk = os.statvfs(there)
    free, files = disk.f_bavail * disk.f_frsize, disk.f_favail
    seen = f"{folder}: {free / _GIB:,.1f} GiB free"
    # Some file systems have no fixed number of files, and say 0 of 0.
    few: Level = "ok"
    if disk.f_files:
        seen += f", room for {files:,} files"
        few = _level(files, _TOO_FEW_INODES, _FEW_INODES)
    level: Level = max(_level(free, _TOO_LITTLE, _LITTLE), few, key=("ok", "warning", "error").index)
    advice = "" if level == "ok" else "free some space, or name a folder on another disk; nothing written is lost"
    return Finding(name, level, seen if folder.exists() else f"{seen}; it is not there yet", advice)


def _level(value: int, error: int, warning: int) -> Level:
    return "error" if value < error else "warning" if value < warning else "ok"
