"""Memory is asked for before it is taken: a table that does not fit is an error, not a killed process."""

from pathlib import Path
from typing import Final

import torch

from prectr.state.errors import ConfigError

_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")


def available_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Return the bytes that this process can still take, of the machine and of its container; None if unknown."""
    limits = []
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit != "max":
            limits.append(max(0, int(limit) - int((cgroup / "memory.current").read_text())))
    except (OSError, ValueError):
        pass
    return min(limits, default=None)


def require_memory(size: int, device: torch.device, what: str, available: int | None = None) -> None:
    """Raise ConfigError if `size` bytes are more than the device has left.

    Args:
        what: the thing that needs them and the setting that makes it smaller, for the message.
        available: bytes, by default those of the device.
    """
    if available is None:
        available = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    if available is not None and size > available:
        raise ConfigError(
            f"{what} needs {size / 2**30:,.1f} GiB of memory, and {available / 2**30:,.1f} GiB are available"
        )
