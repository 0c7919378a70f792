"""Runs a command, and kills it with SIGKILL at a failpoint: `POINT N COMMAND…`, or `@FILE COMMAND…`.

POINT N: at its N-th passing. @FILE: as the `POINT N` in the file specifies, counted from when the file exists; it is
deleted before the process is killed. Once there is a FILE.gradient, a trainer's next gradient has an infinite number,
and that file is deleted. On SIGUSR1, or a crash in native code, the command writes the stacks of its
threads to stderr.
"""

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from prectr.ops.cli.main import main as run_command
from prectr.state.failpoints import Failpoint, set_failpoint_hook


def _kill_at_failpoint(read_order: Callable[[], tuple[Failpoint, int] | None], before_kill: Callable[[], None]) -> None:
    hits = 0
    lock = Lock()

    def on_failpoint(point: Failpoint) -> None:
        nonlocal hits
        with lock:
            found = read_order()
            if found is None or point is not found[0]:
                return
            hits += 1
            if hits == found[1]:
                before_kill()
                os.kill(os.getpid(), signal.SIGKILL)

    set_failpoint_hook(on_failpoint)


def _read_order(file: Path) -> tuple[Failpoint, int] | None:
    try:
        point, number = file.read_text().split()
    except FileNotFoundError:
        return None
    return Failpoint(point), int(number)


def _spoil_gradients(order: Path) -> None:
    """Make a number of a gradient infinite, once for each time that the file is there."""
    from torch import inf

    from prectr.model.layers.gradients import Gradients
    from prectr.model.training import trainer

    failure_of_gradients = trainer.failure_of_gradients

    def spoiled(gradients: Gradients, parameter_at: Callable[[int], str]) -> str:
        values = [table.values for table in gradients.tables.values() if table.values.numel()]
        if values and order.exists():
            order.unlink()
            values[0].view(-1)[-1] = inf
        return failure_of_gradients(gradients, parameter_at)

    trainer.failure_of_gradients = spoiled


def main() -> None:
    """Arm the crash that the first arguments name, and run the command with the others."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    if sys.argv[1].startswith("@"):
        armed = Path(sys.argv[1][1:])
        _kill_at_failpoint(lambda: _read_order(armed), armed.unlink)
        del sys.argv[1]
        if sys.argv[1] == "train":
            _spoil_gradients(armed.with_suffix(".gradient"))
    else:
        given = (Failpoint(sys.argv[1]), int(sys.argv[2]))
        _kill_at_failpoint(lambda: given, lambda: None)
        del sys.argv[1:3]
    run_command()


if __name__ == "__main__":
    main()
