"""Memory, file descriptors and threads of processes, as the kernel reports them, sampled in the background."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

SAMPLE_INTERVAL: Final = 5.0
"""Seconds between two samples."""


class Sample(msgspec.Struct, frozen=True):
    """A process at a moment.

    Attributes:
        at: seconds since the start of the run.
        age: seconds since the process was first sampled.
        memory: resident set, in bytes.
    """

    at: float
    name: str
    pid: int
    age: float
    memory: int
    descriptors: int
    threads: int


class ProcessSampler:
    """Samples processes every few seconds until it is closed."""

    def __init__(self, pids: Callable[[], Mapping[str, int]], lag: Callable[[], float | None]) -> None:
        """Begin.

        Args:
            pids: by name, of the processes that are running now.
            lag: records that the trainer has not read; None if it does not say.
        """
        self.samples: list[Sample] = []
        self.lags: list[tuple[float, float]] = []
        """Seconds since the start of the run, and unread records."""
        self._pids, self._lag = pids, lag
        self._started = time.monotonic()
        self._first_seen: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sample no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_INTERVAL):
            at = time.monotonic() - self._started
            lag = self._lag()
            if lag is not None:
                self.lags.append((at, lag))
            for name, pid in self._pids().items():
                # It may end at this moment.
                with suppress(OSError, KeyError):
                    self.samples.append(self._sample(at, name, pid))

    def _sample(self, at: float, name: str, pid: int) -> Sample:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return Sample(
            at=at,
            name=name,
            pid=pid,
            age=at - self._first_seen.setdefault(pid, at),
            memory=int(status["VmRSS"].split()[0]) * 1024,
            descriptors=sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
            threads=int(status["Threads"]),
        )
