"""Finds the process that holds a file lock, without touching the lock."""

import os
import time
from pathlib import Path
from typing import Final

_LOCKS: Final = Path("/proc/locks")
_START_TIME: Final = 19
"""Index of the time of start among the fields of /proc/PID/stat that follow the name."""


def lock_holder(lock: Path) -> int | None:
    """The id of the process that holds the lock on a file; None if it is not locked.

    Looks in /proc/locks: trying the lock could make a process fail that starts at the same moment.
    """
    try:
        stat = lock.stat()
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    inode = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    for line in lines:
        fields = line.split()
        if "FLOCK" in fields and inode in fields:
            return int(fields[fields.index(inode) - 1])
    return None


def running_seconds(pid: int) -> float | None:
    """For how long a process has been running; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START_TIME]) / os.sysconf("SC_CLK_TCK")
