"""Runs the command, and kills it with SIGKILL as it passes a named point: `POINT N COMMAND…`, or `@FILE COMMAND…`.

POINT N: at its N-th passing. @FILE: once there is such a file, as the `POINT N` in it says, counted from then on; the
file goes before the process does. SIGUSR1, or a crash in native code, makes the command write the stacks of its threads
to stderr.
"""

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from prectr.ops.cli.main import main
from prectr.state.failpoints import on_points


def _kill_at(told: Callable[[], tuple[str, int] | None], fired: Callable[[], None]) -> None:
    passings = 0
    lock = Lock()

    def at_point(passed: str) -> None:
        nonlocal passings
        with lock:
            found = told()
            if found is None or passed != found[0]:
                return
            passings += 1
            if passings == found[1]:
                fired()
                os.kill(os.getpid(), signal.SIGKILL)

    on_points(at_point)


def _in_file(file: Path) -> tuple[str, int] | None:
    try:
        point, number = file.read_text().split()
    except FileNotFoundError:
        return None
    return point, int(number)


if __name__ == "__main__":
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    if sys.argv[1].startswith("@"):
        armed = Path(sys.argv[1][1:])
        _kill_at(lambda: _in_file(armed), armed.unlink)
        del sys.argv[1]
    else:
        given = (sys.argv[1], int(sys.argv[2]))
        _kill_at(lambda: given, lambda: None)
        del sys.argv[1:3]
    main()
