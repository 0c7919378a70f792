"""Limits of the system that a process runs into: which one it was, and what raises it."""

import errno
import os
import resource
from collections.abc import Mapping
from typing import Final

UNLIMITED: Final = "unlimited"
_AGAIN: Final = "then run the same command again"
_TEXTS: Final[Mapping[int, tuple[str, ...]]] = {
    # Before EMFILE, whose text is the beginning of this one's.
    errno.ENFILE: (os.strerror(errno.ENFILE),),
    errno.EMFILE: (os.strerror(errno.EMFILE),),
    errno.EFBIG: (os.strerror(errno.EFBIG),),
    errno.ENOSPC: (os.strerror(errno.ENOSPC),),
    errno.EDQUOT: (os.strerror(errno.EDQUOT),),
    errno.ENOMEM: (os.strerror(errno.ENOMEM),),
    # Of Python's threads; as an error of the system, EAGAIN is also that of a lock and of a socket.
    errno.EAGAIN: ("can't start new thread",),
}
"""By error, what RocksDB, Python and others write where they pass on the text alone."""
_ADVICE: Final = {
    errno.EMFILE: "the limit of open files is {open_files}: raise it, by ulimit -n or LimitNOFILE= of a unit",
    errno.ENFILE: "the machine has no open files left: raise fs.file-max",
    errno.EFBIG: "the limit of the size of a file is {file_size}: lift it, by ulimit -f unlimited or "
    "LimitFSIZE=infinity of a unit",
    errno.ENOSPC: "the disk is full, or has no inodes left: free some space",
    errno.EDQUOT: "the disk quota of this user is used up: free some space or raise it",
    errno.ENOMEM: "the memory of the machine or its container is used up: free some or allow more",
    errno.EAGAIN: "the limit of threads is reached, which for this user is {threads}: raise it, by ulimit -u, "
    "TasksMax= of a unit or pids_limit of a container",
}


def limit_of(error: BaseException | str) -> int | None:
    """Return the error number of the limit that an error, or its text, comes from; None if it is of another kind."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _TEXTS and error.errno != errno.EAGAIN else None
    text = str(error)
    return next((number for number, texts in _TEXTS.items() if any(each in text for each in texts)), None)


def limit_advice(error: BaseException | str) -> str:
    """Return which limit an error, or its text, comes from, and what to do; empty if it comes from none."""
    number = limit_of(error)
    if number is None:
        return ""
    size = soft_limit(resource.RLIMIT_FSIZE)
    advice = _ADVICE[number].format(
        open_files=soft_limit(resource.RLIMIT_NOFILE),
        file_size=size if size == UNLIMITED else f"{size} bytes",
        threads=soft_limit(resource.RLIMIT_NPROC),
    )
    return f"{advice}, {_AGAIN}"


def soft_limit(kind: int) -> str:
    """Return a limit of this process as text."""
    limit, _ = resource.getrlimit(kind)
    return UNLIMITED if limit == resource.RLIM_INFINITY else f"{limit:,}"
