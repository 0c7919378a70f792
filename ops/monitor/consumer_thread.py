"""Faust's consumer thread, made so that it can be abandoned.

Faust runs its Kafka client in a thread with an event loop of its own and, to stop, waits for that thread without a
limit: while the broker is away, the client may never end. A thread that has been abandoned stops its loop and ends.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from typing import Any, Final

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from mode.threads import WorkerThread

_threads: Final["set[AbandonableThread]"] = set()


class AbandonableThread(WorkerThread):
    """A service's thread, for which the process does not wait when it ends."""

    def __init__(self, service: Any, **options: Any) -> None:
        super().__init__(service, **options)
        self.daemon = True
        self.is_abandoned = False
        """Whether it was told to end without its service."""
        _threads.add(self)

    def run(self) -> None:
        """Run the service; the error of a loop that was stopped under it is not reported."""
        try:
            super().run()
        except RuntimeError:
            if not self.is_abandoned:
                raise

    def abandon(self) -> None:
        """Stop the thread's event loop; safe to call from any thread, also when it has ended."""
        self.is_abandoned = True
        # Coroutines of the stopped loop raise when they are collected, which says nothing.
        sys.unraisablehook = _ignore
        loop = self.service.thread_loop
        # A closed loop raises: the thread has ended by itself.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)


@contextmanager
def abandoned_after(seconds: float) -> Iterator[None]:
    """Leave every consumer thread that still runs when this much time has passed within the block."""
    _threads.difference_update([thread for thread in _threads if not (thread.is_alive() or thread.is_abandoned)])
    timer = Timer(seconds, _abandon_all)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _abandon_all() -> None:
    for thread in list(_threads):
        if thread.is_alive():
            thread.abandon()


def any_abandoned() -> bool:
    """Return whether a thread has been abandoned."""
    return any(thread.is_abandoned for thread in _threads)


def _ignore(_: "sys.UnraisableHookArgs") -> None:
    pass


def use_abandonable_threads() -> None:
    """Have Faust make its consumer threads of this kind."""
    AIOKafkaConsumerThread.Worker = AbandonableThread
