"""Runs a command as a child of `prectr run` that exits when its parent dies.

The parent holds the other end of this process's stdin and never writes to it: end of file on stdin means that the
parent is gone, even after `kill -9`. Run as `python -m prectr.ops.live.parent_watchdog COMMAND …`.
"""

import os
import signal
import time
from threading import Thread
from typing import Final

from prectr.ops.cli.main import main

GRACE_PERIOD: Final = 30.0
"""Seconds to stop with everything committed; a child that still hangs then, on a lost broker, is killed."""


def _exit_with_parent(fd: int, grace_period: float) -> None:
    """Wait for the end of file of `fd`, then send SIGTERM to this process and, after the grace period, SIGKILL."""
    while os.read(fd, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_period)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Thread(target=_exit_with_parent, args=(0, GRACE_PERIOD), name="parent-watchdog", daemon=True).start()
    main()
