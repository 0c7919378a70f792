"""Runs the command, and kills it with SIGKILL as it passes a named point for the n-th time: POINT N COMMAND…"""

import os
import signal
import sys
from threading import Lock

from ops.cli import main
from state.points import on_points


def _kill_at(point: str, number: int) -> None:
    left = [number]
    lock = Lock()

    def at_point(passed: str) -> None:
        if passed != point:
            return
        with lock:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    on_points(at_point)


if __name__ == "__main__":
    _kill_at(sys.argv[1], int(sys.argv[2]))
    del sys.argv[1:3]
    main()
