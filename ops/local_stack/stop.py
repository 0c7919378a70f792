"""Stops the services of `make up`: first those that commit to the broker, then all others."""

import logging
import signal
from pathlib import Path
from typing import Final

from prectr.ops.local_stack.processes import process_leaders, processes_of, send_signal, wait_until_gone
from prectr.state.errors import PrectrError

SYSTEM: Final = "system"
"""The service of the Procfile that must commit before the broker stops."""
_COMMIT_SECONDS: Final = 75.0
_RETRY_SECONDS: Final = 10.0
_EXIT_SECONDS: Final = 20.0
_KILL_SECONDS: Final = 10.0
_log = logging.getLogger("prectr")


def stop(folder: Path) -> bool:
    """Stop every process of the run in `folder`; safe to repeat. Returns whether there was any.

    Raises:
        PrectrError: a process remains even after SIGKILL.
    """
    if not processes_of(folder):
        return False
    # A suspended process (Ctrl-Z, a debugger) must run to handle SIGTERM.
    send_signal(processes_of(folder), signal.SIGCONT)
    # Stream workers, trainer and monitor first, while they can commit to the broker. honcho stops the others then.
    for seconds in (_COMMIT_SECONDS, _RETRY_SECONDS):
        system = [process for process in processes_of(folder) if process.service == SYSTEM]
        if system:
            # The second signal ends a process at once that waits for an unavailable broker.
            send_signal(process_leaders(system), signal.SIGTERM)
            wait_until_gone(folder, seconds, SYSTEM)
    if not any(process.service == "" for process in processes_of(folder)):
        send_signal(processes_of(folder), signal.SIGTERM)
    for process in wait_until_gone(folder, _EXIT_SECONDS):
        _log.warning("%s (process %d) did not stop: killed", process.service or "honcho", process.pid)
        send_signal([process], signal.SIGKILL)
    if remaining := wait_until_gone(folder, _KILL_SECONDS):
        raise PrectrError(f"processes {', '.join(str(each.pid) for each in remaining)} of {folder} cannot be stopped")
    return True
