"""Memory is asked for before it is taken: a table that does not fit is an error, not a killed process."""

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prectr.state.errors import ConfigError

if TYPE_CHECKING:
    import torch

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


def read_file(path: Path) -> bytes:
    """Read a file that may be anybody's, if it fits into memory twice: as bytes, and as what is decoded from them.

    Raises:
        OSError: it cannot be read, is no regular file, or is too large (EOVERFLOW); `strerror` says so.
    """
    size, available = path.stat().st_size, available_memory()
    if not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if available is not None and 2 * size > available:
        reason = f"it has {size / 2**30:,.1f} GiB, of {available / 2**30:,.1f} GiB of memory that are available"
        raise OSError(errno.EOVERFLOW, reason, str(path))
    return path.read_bytes()


def require_memory(size: int, device: "torch.device", what: str, available: int | None = None) -> None:
    """Raise ConfigError if `size` bytes are more than the device has left.

    Args:
        what: the thing that needs them and the setting that makes it smaller, for the message.
        available: bytes, by default those of the device.
    """
    if available is None:
        import torch  # noqa: PLC0415 (what only reads files does without it)

        available = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    if available is not None and size > available:
        raise ConfigError(
            f"{what} needs {size / 2**30:,.1f} GiB of memory, and {available / 2**30:,.1f} GiB are available"
        )
