"""The processes that train one model together, as `torchrun` starts them, and how they tell each other things."""

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import wraps
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from prectr.model.training.device import pick_device
from prectr.state.errors import ConfigError, TrainingError

Given = ParamSpec("Given")
Result = TypeVar("Result")

PATIENCE: Final = timedelta(seconds=120)
"""How long a rank waits for the others before it takes them for lost. One that has died is noticed at once."""


def _loses_others(call: Callable[Concatenate["Ranks", Given], Result]) -> Callable[Concatenate["Ranks", Given], Result]:
    """A call of a rank whose failure means that another rank has gone."""

    @wraps(call)
    def wrapped(ranks: "Ranks", /, *given: Given.args, **named: Given.kwargs) -> Result:
        try:
            return call(ranks, *given, **named)
        except RuntimeError as error:
            # Every error of torch.distributed is one of these; the first line says all. The frames of its traceback
            # hold the process group, and would keep the group's threads alive after the rank has been left.
            words = str(error).partition("\n")[0]
            raise TrainingError(
                f"rank {ranks.rank} of {ranks.size} has lost the others ({words}): look at what they said last; "
                "the same torchrun command goes on from the newest checkpoint"
            ) from error.with_traceback(None)

    return wrapped


class Ranks:
    """Rank r of R processes that all make the same calls in the same order; each call waits for all.

    CPU tensors go by gloo, those on GPUs by NCCL. It is a context manager: leave it before the process ends, by an
    error too.

    Raises (every call):
        TrainingError: another rank has gone, or said nothing for `PATIENCE`.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        """Meet the others at MASTER_ADDR and MASTER_PORT."""
        self.rank = rank
        self.size = size
        self.device = device
        self._meet()

    @_loses_others
    def _meet(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            dist.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)
        else:
            dist.init_process_group("gloo", timeout=PATIENCE)

    def gather(self, said: bytes) -> list[bytes]:
        """What each rank said, in order of rank."""
        # A copy, since torch wants memory that can be written to.
        own = torch.from_numpy(np.frombuffer(said, np.uint8).copy())
        return [each.numpy().tobytes() for each in self.gather_tensors(own)]

    @_loses_others
    def gather_tensors(self, own: Tensor) -> list[Tensor]:
        """The tensor of each rank, in order of rank; uint8[any], on the ranks' device or on the CPU."""
        sizes = torch.empty(self.size, dtype=torch.int64)
        dist.all_gather(list(torch.split(sizes, 1)), torch.tensor([len(own)]))
        lengths = sizes.tolist()
        padded = own.new_zeros(max(lengths))
        padded[: len(own)] = own
        heard = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(heard, padded)
        return [each[:length] for each, length in zip(heard, lengths, strict=True)]

    @_loses_others
    def add_up(self, tensor: Tensor) -> None:
        """Replace `tensor` by its sum over all ranks; all get the same bits."""
        dist.all_reduce(tensor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Part from the others, at the end of the work or after an error, before the interpreter ends.

        gloo's threads may still hold a tensor of the last call, and an interpreter that ends meanwhile aborts: this
        waits for them, and not for the other ranks. NCCL waits for those as well, so after an error a rank on a GPU
        just ends.
        """
        if error is None or self.device.type == "cpu":
            dist.destroy_process_group()


def join_ranks(device: str, environment: Mapping[str, str] = os.environ) -> Ranks | None:
    """Join the processes that `torchrun` has started together with this one; None where it is by itself.

    device: as in the configuration; each process on a machine gets a GPU of its own, or none does.

    Raises:
        ConfigError: the environment is not as torchrun makes it, or there are too few GPUs.
        TrainingError: the others cannot be reached.
    """
    size = _number("WORLD_SIZE", environment, 1)
    if size == 1:
        return None
    rank = _number("RANK", environment)
    local_rank = _number("LOCAL_RANK", environment, rank)
    chosen = pick_device(device, local_rank, _number("LOCAL_WORLD_SIZE", environment, size))
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in environment:
            raise ConfigError(f"WORLD_SIZE is {size} and {name} is not set: {_HOW}")
    return Ranks(rank, size, chosen)


def _number(name: str, environment: Mapping[str, str], default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdigit() or (name == "WORLD_SIZE" and int(text) < 1):
        raise ConfigError(f"environment variable {name} is {text or 'not set'}: {_HOW}")
    return int(text)


_HOW: Final = "start several trainers with torchrun, which sets it, or unset WORLD_SIZE to train in one process"
