"""Free disk space and write permission of the folders of the live system."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prectr.ops.doctor.findings import Finding, Severity

_GIB: Final = 1 << 30
_LOW_BYTES: Final = 2 * _GIB
_CRITICAL_BYTES: Final = _GIB // 4
_LOW_INODES: Final = 10_000
_CRITICAL_INODES: Final = 500


def check_disk(state_dir: Path | None, run_dir: Path | None, snapshots: str | None) -> Iterator[Finding]:
    """Check the given folders; snapshots on remote storage are skipped."""
    if state_dir is not None:
        yield check_folder("state folder", state_dir)
    if run_dir is not None:
        yield check_folder("run folder", run_dir)
    local = None if snapshots is None else local_path(snapshots)
    if local is not None:
        yield check_folder("snapshots folder", local)


def local_path(url: str) -> Path | None:
    """The folder of a snapshot location; None if it is not on this machine."""
    scheme, found, rest = url.partition("://")
    if not found:
        return Path(url)
    return Path(rest) if scheme in ("file", "local") else None


def check_folder(name: str, folder: Path) -> Finding:
    """Check a folder, which need not exist yet. name: what it is called."""
    # Not resolved if it exists: a path through /proc/PID/root, of another mount namespace, would lead elsewhere.
    existing = folder if folder.exists() else folder.resolve()
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        advice = f"give the user of the process write permission on {existing}, or use another folder"
        return Finding(name, "error", f"{folder}: {existing} is not writable", advice)
    disk = os.statvfs(existing)
    free, files = disk.f_bavail * disk.f_frsize, disk.f_favail
    observed = f"{folder}: {free / _GIB:,.1f} GiB free"
    # Some file systems have no fixed number of inodes and report 0.
    inode_severity: Severity = "ok"
    if disk.f_files:
        observed += f", {files:,} inodes free"
        inode_severity = _severity(files, _CRITICAL_INODES, _LOW_INODES)
    severity: Severity = max(
        _severity(free, _CRITICAL_BYTES, _LOW_BYTES), inode_severity, key=("ok", "warning", "error").index
    )
    advice = "" if severity == "ok" else "free some space, or use a folder on another disk; no written data is lost"
    return Finding(name, severity, observed if folder.exists() else f"{observed}; does not exist yet", advice)


def _severity(value: int, error: int, warning: int) -> Severity:
    return "error" if value < error else "warning" if value < warning else "ok"
