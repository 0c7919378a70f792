"""What Faust and its Kafka client say while something is wrong, in few words: they say it ten times a second."""

import logging
import os
import threading
import time
from types import TracebackType
from typing import Final, Self

_MIN_SEVERITY: Final = {
    "aiokafka": logging.WARNING,
    # Faust warns of what is no trouble, such as a buffer that is full for a moment.
    "asyncio": logging.ERROR,
    "faust": logging.ERROR,
    "mode": logging.ERROR,
}
"""Loggers, and the level from which on they are heard."""
_LOG_INTERVAL: Final = 10.0
_RECOVERY_SECONDS: Final = 5.0
"""Seconds without a complaint after which it is over: the client complains all the time while it lasts."""
_MAX_LENGTH: Final = 200
_log = logging.getLogger(__name__)


class ClientLogFilter(logging.Handler):
    """Takes the place of the libraries' own log, in a `with`; tells what they complain of, once in ten seconds.

    With PRECTR_DEBUG set, all of it goes through as it is. ending: Faust is being stopped, which it complains of too.
    """

    def __init__(self, bootstrap: str) -> None:
        super().__init__(logging.WARNING)
        self.stopping = False
        self._bootstrap = bootstrap
        self._last_error: float | None = None
        self._logged_at = float("-inf")
        self._loggers = [logging.getLogger(name) for name in _MIN_SEVERITY]

    def emit(self, record: logging.LogRecord) -> None:
        """A complaint, from any thread."""
        text = record.getMessage()
        # Another monitor that comes or goes is no trouble.
        if (
            not self.stopping
            and record.levelno >= _MIN_SEVERITY[record.name.partition(".")[0]]
            and "rebalanc" not in text
        ):
            self._record_error(text)

    def _record_error(self, text: str) -> None:
        now = time.monotonic()
        self._last_error = now
        if now - self._logged_at >= _LOG_INTERVAL:
            self._logged_at = now
            message = " ".join(text.split())
            _log.warning("%s: waiting for Kafka; its client says: %s", self._bootstrap, message[:_MAX_LENGTH])

    def is_failing(self) -> bool:
        """Whether something is wrong; says so once when it is over."""
        if self._last_error is None:
            return False
        if time.monotonic() - self._last_error < _RECOVERY_SECONDS:
            return True
        self._last_error = None
        self._logged_at = float("-inf")
        _log.info("%s: all is well again", self._bootstrap)
        return False

    def __enter__(self) -> Self:
        if os.environ.get("PRECTR_DEBUG", "") in ("", "0"):
            for logger in self._loggers:
                logger.addHandler(self)
                logger.propagate = False
            threading.excepthook = self._on_thread_error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for logger in self._loggers:
            logger.removeHandler(self)
            logger.propagate = True
        threading.excepthook = threading.__excepthook__

    def _on_thread_error(self, args: threading.ExceptHookArgs) -> None:
        if not self.stopping:
            self._record_error(f"{args.exc_type.__name__}: {args.exc_value}")
