"""Rate-limits the log of Faust and its Kafka client, which repeat an error ten times a second while it lasts."""

import logging
import os
import threading
import time
from types import TracebackType
from typing import Final, Self

from prectr.ops.monitor.consumer_thread import any_abandoned

_MIN_SEVERITY: Final = {
    "aiokafka": logging.WARNING,
    # Faust logs harmless warnings, such as a full buffer.
    "asyncio": logging.ERROR,
    "faust": logging.ERROR,
    "mode": logging.ERROR,
}
"""By logger: the lowest severity that is passed on."""
_LOG_INTERVAL: Final = 60.0
_RECOVERY_SECONDS: Final = 5.0
"""Seconds without an error after which it counts as resolved: the client repeats errors while they last."""
_MAX_LENGTH: Final = 200
_log = logging.getLogger(__name__)


class ClientLogFilter(logging.Handler):
    """Replaces the handlers of the libraries' loggers in a `with` block and logs one of their errors a minute.

    With PRECTR_DEBUG set, everything is logged unchanged. stopping: Faust is being stopped, so its errors are expected.
    """

    def __init__(self, bootstrap: str) -> None:
        super().__init__(logging.WARNING)
        self.stopping = False
        self._bootstrap = bootstrap
        self._last_error: float | None = None
        self._logged_at = float("-inf")
        self._loggers = [logging.getLogger(name) for name in _MIN_SEVERITY]

    def emit(self, record: logging.LogRecord) -> None:
        """Handle a record of a library, from any thread."""
        text = record.getMessage()
        # A rebalance is not an error.
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
            _log.warning("%s: waiting for Kafka; client error: %s", self._bootstrap, message[:_MAX_LENGTH])

    def is_failing(self) -> bool:
        """Whether there is an error at present; logs once when it is resolved."""
        if self._last_error is None:
            return False
        if time.monotonic() - self._last_error < _RECOVERY_SECONDS:
            return True
        self._last_error = None
        self._logged_at = float("-inf")
        _log.info("%s: Kafka is available again", self._bootstrap)
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
        if any_abandoned():
            # What an abandoned thread still logs, while the process ends, is expected.
            return
        for logger in self._loggers:
            logger.removeHandler(self)
            logger.propagate = True
        threading.excepthook = threading.__excepthook__

    def _on_thread_error(self, args: threading.ExceptHookArgs) -> None:
        if not self.stopping:
            self._record_error(f"{args.exc_type.__name__}: {args.exc_value}")
