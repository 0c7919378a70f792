"""The device that a model is trained on."""

import torch

from prectr.state.errors import ConfigError


def pick_device(requested: str, local_rank: int = 0, local_ranks: int = 1) -> torch.device:
    """Select the device of one of `local_ranks` processes on this machine: a GPU for each of them, or none.

    Args:
        requested: `auto` (CUDA if there are enough GPUs), `cpu` or `cuda`.
        local_rank: index of the process on this machine.
        local_ranks: processes on this machine.

    Raises:
        ConfigError: `requested` is none of these, or there are too few GPUs.
    """
    if requested not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {requested!r}; it must be auto, cpu or cuda")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if requested == "cpu" or (requested == "auto" and available < local_ranks):
        return torch.device("cpu")
    if available < local_ranks:
        raise ConfigError(
            f"device is 'cuda', and {local_ranks} processes on this machine need as many CUDA devices; torch finds "
            f"{available}: set device to 'auto' or 'cpu', or start fewer processes"
        )
    return torch.device("cuda") if local_ranks == 1 else torch.device("cuda", local_rank)
