"""Deadlines for client calls that may block forever if a broker is killed (kafka-python 3.0.12)."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Final

from kafka.errors import KafkaTimeoutError

_Call = tuple[Callable[[], object], "Future[object]"]


class _DaemonThreads:
    """Reusable threads for blocking calls.

    A thread whose call never returns is lost, and another one is started when it is needed. Unlike those of a
    ThreadPoolExecutor, the threads do not delay the exit of the process.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._lock = Lock()
        self._idle = 0

    def submit(self, call: Callable[[], object]) -> "Future[object]":
        """Start a call on an idle thread, or on a new one."""
        result: Future[object] = Future()
        with self._lock:
            has_idle = self._idle > 0
            if has_idle:
                self._idle -= 1
        self._calls.put((call, result))
        if not has_idle:
            Thread(target=self._run, name="transaction", daemon=True).start()
        return result

    def _run(self) -> None:
        while True:
            self._run_next()

    def _run_next(self) -> None:
        call, result = self._calls.get()
        try:
            outcome = call()
        except BaseException as error:  # noqa: BLE001 (it is raised in the thread that waits for the result)
            self._mark_idle()
            result.set_exception(error)
        else:
            self._mark_idle()
            result.set_result(outcome)

    def _mark_idle(self) -> None:
        # Before the result is set: the thread that waits for it may submit its next call at once.
        with self._lock:
            self._idle += 1


_threads: Final = _DaemonThreads()


def call_with_timeout(timeout: float, call: Callable[[], object]) -> None:
    """Run a blocking call of the client for at most `timeout` seconds.

    Raises:
        KafkaTimeoutError: the call did not return in time; its outcome is unknown.
    """
    try:
        _threads.submit(call).result(timeout)
    except TimeoutError as error:
        raise KafkaTimeoutError(f"no answer in {timeout:g} s") from error
