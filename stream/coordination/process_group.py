"""The processes that share one training run, as a runner sees them, and the case of a single process."""

from typing import Protocol


class ProcessGroup(Protocol):
    """R processes that each run the same program; rank 0 leads.

    All of them make the same calls of `all_gather_bytes` in the same order; each call waits for all processes.
    """

    @property
    def rank(self) -> int:
        """Rank of this process, from 0."""

    @property
    def world_size(self) -> int:
        """Number of processes, R."""

    def all_gather_bytes(self, payload: bytes) -> list[bytes]:
        """Send a payload to all processes; return the payloads of all R, in the order of their ranks.

        Raises:
            PrectrError: a process has exited, or sent nothing before the timeout.
        """


class SingleProcess:
    """The group of a run with one process."""

    rank = 0
    world_size = 1

    def all_gather_bytes(self, payload: bytes) -> list[bytes]:
        """Return this process's payload."""
        return [payload]
