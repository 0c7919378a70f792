"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP) as a stop request that work checks between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a stop was requested; a second signal ends the process at once.

    In a thread other than the main one, which alone can handle signals, the answer is always no.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    requested = False

    def request_stop(number: int, _frame: FrameType | None) -> None:
        nonlocal requested
        requested = True
        signal.signal(number, previous[signal.Signals(number)])

    previous: dict[signal.Signals, Any] = {
        each: signal.signal(each, request_stop)
        for each in _SIGNALS
        # Under nohup the process is to outlive its terminal.
        if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN
    }
    try:
        yield lambda: requested
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
