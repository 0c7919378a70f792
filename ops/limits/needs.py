"""What each process needs of the system: open files, threads, folders. Figures as measured, rounded up."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from prectr.state.store import MAX_OPEN_FILES

STAGES: Final = 2
"""Tasks of a partition: join and aggregate."""
_OPEN_FILES: Final = 64
"""Of a process without tasks: standard streams, libraries, clients, connections to its exporter."""
_OPEN_FILES_PER_STORE: Final = 8
"""Lock, log, manifest, write-ahead log and folders, without table files."""
_OPEN_FILES_PER_TASK: Final = 16
"""The store, and sockets of its consumer and producer."""
_THREADS: Final = 32
_THREADS_PER_TASK: Final = 4
_MONITOR_OPEN_FILES: Final = 128
_MONITOR_MOST_OPEN_FILES: Final = 1024


class Needs(NamedTuple):
    """open_files: without which it cannot start. most_open_files: that it may come to have as its state grows.
    threads: at most. folders: that it writes to, by what they are called.
    """

    open_files: int
    most_open_files: int
    threads: int
    folders: Mapping[str, Path]


def stream_needs(tasks: int, folders: Mapping[str, Path]) -> Needs:
    """Of a stream worker that has so many tasks: all of them, if it is the only one."""
    open_files = _OPEN_FILES + _OPEN_FILES_PER_TASK * tasks
    return Needs(open_files, open_files + MAX_OPEN_FILES * tasks, _THREADS + _THREADS_PER_TASK * tasks, folders)


def replay_needs(tasks: int, folders: Mapping[str, Path]) -> Needs:
    """Of a replay, whose tasks have a store but no client."""
    open_files = _OPEN_FILES + _OPEN_FILES_PER_STORE * tasks
    return Needs(open_files, open_files + MAX_OPEN_FILES * tasks, _THREADS, folders)


def process_needs(folders: Mapping[str, Path]) -> Needs:
    """Of a process without stores: trainer, load."""
    return Needs(_OPEN_FILES, _OPEN_FILES, _THREADS, folders)


def monitor_needs(folders: Mapping[str, Path]) -> Needs:
    """Of a monitor: Faust's clients, and a table for each partition of model-quality."""
    return Needs(_MONITOR_OPEN_FILES, _MONITOR_MOST_OPEN_FILES, _THREADS, folders)
