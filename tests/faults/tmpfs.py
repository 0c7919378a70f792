"""A small disk that can be filled: a tmpfs of its own, which no other process sees and which ends with this one."""

import subprocess
from pathlib import Path
from typing import Final

_MIB: Final = 64
_CHUNK: Final = bytes(1 << 20)

HOW: Final = "mounting a small tmpfs takes root or user namespaces (`unshare --user --map-root-user --mount`)"


class TmpfsVolume:
    """Lies in a mount namespace that a sleeping process holds; `path` leads into it from outside.

    Raises:
        RuntimeError: nothing can be mounted here.
    """

    def __init__(self, mount_point: Path) -> None:
        mount_point.mkdir(parents=True)
        script = f"mount -t tmpfs -o size={_MIB}m prectr-faults '{mount_point}' && echo ready && exec cat"
        self._mount_process: subprocess.Popen[bytes] | None = None
        first_line = b""
        # As a user first: what works without root is what is wanted of CI.
        for namespaces in (["--user", "--map-root-user", "--mount"], ["--mount"]):
            holder = subprocess.Popen(
                ["unshare", *namespaces, "sh", "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            assert holder.stdout is not None
            first_line = holder.stdout.readline()
            if first_line == b"ready\n":
                self._mount_process = holder
                self.path = Path(f"/proc/{holder.pid}/root{mount_point}")
                return
            holder.communicate()
        raise RuntimeError(f"{HOW}; here: {first_line.decode(errors='replace').strip()}")

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.path / "filler").open("ab", buffering=0) as filler:
            size = len(_CHUNK)
            while size:
                try:
                    filler.write(_CHUNK[:size])
                except OSError:
                    size //= 2

    def release(self) -> None:
        """Give back what `fill` took."""
        (self.path / "filler").unlink()

    def close(self) -> None:
        """Let go of it and of all that is on it."""
        if self._mount_process is not None:
            self._mount_process.communicate()
            self._mount_process = None
