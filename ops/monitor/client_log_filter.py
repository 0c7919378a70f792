"""What Faust and its Kafka client say while something is wrong, in few words: they say it ten times a second."""

import logging
import os
import threading
import time
from types import TracebackType
from typing import Final, Self

_LOUD: Final = {
    "aiokafka": logging.WARNING,
    # Faust warns of what is no trouble, such as a buffer that is full for a moment.
    "asyncio": logging.ERROR,
    "faust": logging.ERROR,
    "mode": logging.ERROR,
}
"""Loggers, and the level from which on they are heard."""
_SAY_EVERY: Final = 10.0
_OVER_AFTER: Final = 5.0
"""Seconds without a complaint after which it is over: the client complains all the time while it lasts."""
_LONGEST: Final = 200
_log = logging.getLogger(__name__)


class Trouble(logging.Handler):
    """Takes the place of the libraries' own log, in a `with`; tells what they complain of, once in ten seconds.

    With PRECTR_DEBUG set, all of it goes through as it is. ending: Faust is being stopped, which it complains of too.
    """

    def __init__(self, bootstrap: str) -> None:
        super().__init__(logging.WARNING)
        self.ending = False
        self._bootstrap = bootstrap
        self._last: float | None = None
        self._said = float("-inf")
        self._loggers = [logging.getLogger(name) for name in _LOUD]

    def emit(self, record: logging.LogRecord) -> None:
        """A complaint, from any thread."""
        text = record.getMessage()
        # Another monitor that comes or goes is no trouble.
        if not self.ending and record.levelno >= _LOUD[record.name.partition(".")[0]] and "rebalanc" not in text:
            self._complained(text)

    def _complained(self, text: str) -> None:
        now = time.monotonic()
        self._last = now
        if now - self._said >= _SAY_EVERY:
            self._said = now
            words = " ".join(text.split())
            _log.warning("%s: waiting for Kafka; its client says: %s", self._bootstrap, words[:_LONGEST])

    def now(self) -> bool:
        """Whether something is wrong; says so once when it is over."""
        if self._last is None:
            return False
        if time.monotonic() - self._last < _OVER_AFTER:
            return True
        self._last = None
        self._said = float("-inf")
        _log.info("%s: all is well again", self._bootstrap)
        return False

    def __enter__(self) -> Self:
        if os.environ.get("PRECTR_DEBUG", "") in ("", "0"):
            for logger in self._loggers:
                logger.addHandler(self)
                logger.propagate = False
            threading.excepthook = self._thread_died
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for logger in self._loggers:
            logger.removeHandler(self)
            logger.propagate = True
        threading.excepthook = threading.__excepthook__

    def _thread_died(self, died: threading.ExceptHookArgs) -> None:
        if not self.ending:
            self._complained(f"{died.exc_type.__name__}: {died.exc_value}")
