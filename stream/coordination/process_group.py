"""The processes that share one training run: what a runner asks of them, and a process by itself."""

from typing import Protocol


class Peers(Protocol):
    """R processes that each run the same program; rank 0 leads.

    All of them call `gather` the same number of times in the same order: each call waits for all.
    """

    @property
    def rank(self) -> int:
        """Which of them this process is, from 0."""

    @property
    def size(self) -> int:
        """R."""

    def gather(self, said: bytes) -> list[bytes]:
        """Tell all the others something; returns what each of the R said, in order of rank.

        Raises:
            PrectrError: one of them has gone, or said nothing for too long.
        """


class Alone:
    """A process that shares its run with nobody."""

    rank = 0
    size = 1

    def gather(self, said: bytes) -> list[bytes]:
        """What this process said."""
        return [said]
