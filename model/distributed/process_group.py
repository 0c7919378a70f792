"""The process group of data-parallel training, as started by `torchrun`, and its collectives."""

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

Params = ParamSpec("Params")
Return = TypeVar("Return")

_HINT: Final = "start several trainers with torchrun, which sets it, or unset WORLD_SIZE to train in one process"

TIMEOUT: Final = timedelta(seconds=120)
"""Timeout of every collective. The death of a rank is noticed at once."""


def _raises_peer_lost(
    call: Callable[Concatenate["TorchProcessGroup", Params], Return],
) -> Callable[Concatenate["TorchProcessGroup", Params], Return]:
    """Turn errors of torch.distributed into a TrainingError: another rank is lost."""

    @wraps(call)
    def wrapped(ranks: "TorchProcessGroup", /, *args: Params.args, **kwargs: Params.kwargs) -> Return:
        try:
            return call(ranks, *args, **kwargs)
        except RuntimeError as error:
            # All errors of torch.distributed are RuntimeErrors; the first line is enough. The frames of the traceback
            # hold the process group, and would keep the group's threads alive after `__exit__`.
            message = str(error).partition("\n")[0]
            raise TrainingError(
                f"rank {ranks.rank} of {ranks.world_size} has lost the others ({message}): check their last log lines; "
                "the same torchrun command resumes from the newest checkpoint"
            ) from error.with_traceback(None)

    return wrapped


class TorchProcessGroup:
    """Rank r of R processes, which all make the same calls in the same order; each call waits for all ranks.

    CPU tensors use gloo, GPU tensors NCCL. A context manager, to be exited before the process ends, after errors too.
    All calls raise TrainingError if another rank has died or has not answered within `TIMEOUT`.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        """Connect to the other ranks at MASTER_ADDR and MASTER_PORT."""
        self.rank = rank
        self.world_size = size
        self.device = device
        self._init()

    @_raises_peer_lost
    def _init(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            dist.init_process_group("cpu:gloo,cuda:nccl", timeout=TIMEOUT)
        else:
            dist.init_process_group("gloo", timeout=TIMEOUT)

    def all_gather_bytes(self, payload: bytes) -> list[bytes]:
        """The payload of each rank, in order of rank."""
        # A copy, since torch requires writable memory.
        own = torch.from_numpy(np.frombuffer(payload, np.uint8).copy())
        return [each.numpy().tobytes() for each in self.all_gather(own)]

    @_raises_peer_lost
    def all_gather(self, own: Tensor) -> list[Tensor]:
        """The tensor uint8[any] of each rank, in order of rank, on the ranks' device or on the CPU."""
        sizes = torch.empty(self.world_size, dtype=torch.int64)
        dist.all_gather(list(torch.split(sizes, 1)), torch.tensor([len(own)]))
        lengths = sizes.tolist()
        padded = own.new_zeros(max(lengths))
        padded[: len(own)] = own
        gathered = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(gathered, padded)
        return [each[:length] for each, length in zip(gathered, lengths, strict=True)]

    @_raises_peer_lost
    def all_reduce(self, tensor: Tensor) -> None:
        """Replace `tensor` by its sum over all ranks; bitwise identical on all ranks."""
        dist.all_reduce(tensor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Destroy the process group, before the interpreter exits.

        gloo's threads may still hold a tensor of the last call, and the interpreter aborts if it exits meanwhile: this
        waits for the threads, not for the other ranks. NCCL would wait for the ranks too, so after an error on a GPU
        the group is left as it is.
        """
        if error is None or self.device.type == "cpu":
            dist.destroy_process_group()


def init_process_group(device: str, environment: Mapping[str, str] = os.environ) -> TorchProcessGroup | None:
    """Join the process group that `torchrun` has started; None for a single process.

    Args:
        device: as in the configuration; each process on a machine gets a GPU of its own, or none does.
        environment: variables that torchrun sets.

    Raises:
        ConfigError: the environment is not that of torchrun, or there are too few GPUs.
        TrainingError: the other ranks cannot be reached.
    """
    size = _read_int("WORLD_SIZE", environment, 1)
    if size == 1:
        return None
    rank = _read_int("RANK", environment)
    local_rank = _read_int("LOCAL_RANK", environment, rank)
    chosen = pick_device(device, local_rank, _read_int("LOCAL_WORLD_SIZE", environment, size))
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in environment:
            raise ConfigError(f"WORLD_SIZE is {size} and {name} is not set: {_HINT}")
    return TorchProcessGroup(rank, size, chosen)


def _read_int(name: str, environment: Mapping[str, str], default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdigit() or (name == "WORLD_SIZE" and int(text) < 1):
        raise ConfigError(f"environment variable {name} is {text or 'not set'}: {_HINT}")
    return int(text)
