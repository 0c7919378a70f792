"""The processes that share one training run: what a runner asks of them, and a process by itself."""

from typing import Protocol


class ProcessGroup(Protocol):
    """R processes that each run the same program; rank 0 leads.

    All of them call `gather` the same number of times in the same order: each call waits for all.
    """

    @property
    def rank(self) -> int:
        """Which of them this process is, from 0."""

    @property
    def world_size(self) -> int:
        """R."""

    def all_gather_bytes(self, payload: bytes) -> list[bytes]:
        """Tell all the others something; returns what each of the R said, in order of rank.

        Raises:
            PrectrError: one of them has gone, or said nothing for too long.
        """


class SingleProcess:
    """A process that shares its run with nobody."""

    rank = 0
    world_size = 1

    def all_gather_bytes(self, payload: bytes) -> list[bytes]:
        """What this process said."""
        return [payload]
