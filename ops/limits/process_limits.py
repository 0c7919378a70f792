"""The limits of a process, as the kernel has them."""

import os
import resource
import sys
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_CGROUP: Final = Path("/sys/fs/cgroup")


class ProcessLimits(NamedTuple):
    """open_files: the soft limit. hard_open_files: to which a process may raise it. file_size: in bytes.
    threads_left: that can still be started. Each is `sys.maxsize` if it is unlimited or unknown.
    """

    open_files: int
    hard_open_files: int
    file_size: int
    threads_left: int


def own_limits() -> ProcessLimits:
    """The limits of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    size, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return ProcessLimits(_number(soft), _number(hard), _number(size), _threads_left())


def limits_of(pid: int, proc: Path = _PROC) -> ProcessLimits | None:
    """The limits of another process; None if they may not be read, or it has ended."""
    try:
        lines = (proc / str(pid) / "limits").read_text().splitlines()
    except OSError:
        return None
    # "Max open files            1024                 1048576              files"
    values = {line[:26].strip(): line[26:].split() for line in lines}
    files, size = values["Max open files"], values["Max file size"]
    soft, hard, largest = (sys.maxsize if each == "unlimited" else int(each) for each in (*files[:2], size[0]))
    return ProcessLimits(soft, hard, largest, sys.maxsize)


def open_file_count(pid: int, proc: Path = _PROC) -> int | None:
    """The number of files that a process has open; None if they may not be counted."""
    try:
        return len(os.listdir(proc / str(pid) / "fd"))
    except OSError:
        return None


def raise_open_files(wanted: int) -> None:
    """Raise this process's soft limit of open files as far as it is wanted and the hard limit allows.

    The soft limit is commonly 1,024 for the sake of programs that use select(), which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))


def _threads_left() -> int:
    """The threads that the user and the container of this process can still start."""
    left = [sys.maxsize]
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    # The kernel exempts root.
    if limit != resource.RLIM_INFINITY and os.getuid() != 0:
        left.append(limit - _threads_of_user(os.getuid()))
    try:
        most = (_CGROUP / "pids.max").read_text().strip()
        if most != "max":
            left.append(int(most) - int((_CGROUP / "pids.current").read_text()))
    except (OSError, ValueError):
        pass
    return min(left)


def _threads_of_user(user: int) -> int:
    threads = 0
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid == user:
                threads += len(os.listdir(entry / "task"))
        except OSError:
            # It has ended meanwhile.
            continue
    return threads


def _number(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
