"""R ranks as threads of one process: no network, and every sum written out."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from prectr.model.distributed.process_group import TorchProcessGroup

Result = TypeVar("Result")
_SECONDS = 60


class ThreadExchange:
    """Where R threads exchange things: each call waits for all, as between processes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size)
        self._values: list[Any] = [None] * size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self._values[rank] = value
        self._barrier.wait(_SECONDS)
        values = list(self._values)
        self._barrier.wait(_SECONDS)
        return values


class ThreadProcessGroup(TorchProcessGroup):
    """A rank that is a thread."""

    def __init__(self, rank: int, exchange: ThreadExchange) -> None:
        self.rank = rank
        self.world_size = exchange.size
        self.device = torch.device("cpu")
        self._exchange = exchange

    def all_gather(self, own: Tensor) -> list[Tensor]:
        return self._exchange.exchange(self.rank, own.clone())

    def all_reduce(self, tensor: Tensor) -> None:
        tensor.copy_(torch.stack(self._exchange.exchange(self.rank, tensor.clone())).sum(dim=0))


def run_on_ranks(size: int, work: Callable[[TorchProcessGroup], Result]) -> list[Result]:
    """What `work` gives on each of `size` ranks."""
    exchange = ThreadExchange(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, [ThreadProcessGroup(rank, exchange) for rank in range(size)]))
