"""R ranks as threads of one process: no network, and every sum written out."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from prectr.model.distributed.process_group import Ranks

Result = TypeVar("Result")
_SECONDS = 60


class Meeting:
    """Where R threads exchange things: each call waits for all, as between processes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size)
        self._said: list[Any] = [None] * size

    def exchange(self, rank: int, said: Any) -> list[Any]:
        self._said[rank] = said
        self._barrier.wait(_SECONDS)
        heard = list(self._said)
        self._barrier.wait(_SECONDS)
        return heard


class ThreadRanks(Ranks):
    """A rank that is a thread."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank = rank
        self.size = meeting.size
        self.device = torch.device("cpu")
        self._meeting = meeting

    def gather_tensors(self, own: Tensor) -> list[Tensor]:
        return self._meeting.exchange(self.rank, own.clone())

    def add_up(self, tensor: Tensor) -> None:
        tensor.copy_(torch.stack(self._meeting.exchange(self.rank, tensor.clone())).sum(dim=0))


def in_threads(size: int, work: Callable[[Ranks], Result]) -> list[Result]:
    """What `work` gives on each of `size` ranks."""
    meeting = Meeting(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, [ThreadRanks(rank, meeting) for rank in range(size)]))
