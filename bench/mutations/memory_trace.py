"""Resident memory of the processes of a run, sampled from outside."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

_INTERVAL: Final = 0.5
_RESIDENT: Final = re.compile(r"VmRSS:\s+(\d+) kB")


class MemorySample(msgspec.Struct, frozen=True):
    """Resident memory in MB when so many records had been processed."""

    records: int
    resident: float


class MemoryTrace:
    """Samples processes by name in a thread, from `start` to `stop`. progress: number of records processed so far."""

    def __init__(self, progress: Callable[[], int]) -> None:
        self.samples: dict[str, list[MemorySample]] = {}
        self._pids: dict[str, int] = {}
        self._progress = progress
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def watch(self, name: str, pid: int) -> None:
        """Sample a process from now on, in place of an earlier one of that name."""
        self._pids[name] = pid

    def start(self) -> None:
        """Start to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to sample."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            records = self._progress()
            for name, pid in list(self._pids.items()):
                if (resident := resident_megabytes(pid)) is not None:
                    self.samples.setdefault(name, []).append(MemorySample(records, resident))


def resident_megabytes(pid: int) -> float | None:
    """Resident memory of a process in MB; None if it no longer exists."""
    try:
        found = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return int(found[1]) * 1024 / 1e6 if found else None
