"""The command as a child of `prectr run`: it ends when its parent does, however that ends.

The parent holds the other end of this process's stdin and never writes to it, so that the end of stdin is the end of
the parent, `kill -9` included. Run as `python -m prectr.ops.live.parent_watchdog COMMAND …`.
"""

import os
import signal
import time
from threading import Thread
from typing import Final

from prectr.ops.cli.main import main

GRACE_PERIOD: Final = 30.0
"""Seconds to end with everything committed; a child that still hangs then (on a broker that is gone) is killed."""


def _exit_with_parent(fd: int, grace_period: float) -> None:
    """Wait for the end of `fd`, then ask this process to stop and, after `grace` seconds, make it."""
    while os.read(fd, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_period)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Thread(target=_exit_with_parent, args=(0, GRACE_PERIOD), name="parent-watchdog", daemon=True).start()
    main()
