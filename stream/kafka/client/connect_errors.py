"""Why the client library could not connect: it only logs that, and raises a timeout."""

import logging
from typing import Final

from kafka.errors import (
    AuthorizationError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

AUTHENTICATION_ERRORS: Final = (AuthorizationError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError)
"""What no further attempt mends."""
_CLIENT_LOGGER: Final = "kafka"
_CONNECTION_LOGGER: Final = "kafka.net.manager"


class _ConnectErrorHandler(logging.Handler):
    """Keeps the last error of an attempt to connect."""

    last_error: Exception | None = None

    def emit(self, record: logging.LogRecord) -> None:
        for argument in record.args if isinstance(record.args, tuple) else ():
            # Timeouts follow, and say nothing of why.
            known = isinstance(argument, KafkaTimeoutError) or isinstance(self.last_error, AUTHENTICATION_ERRORS)
            if isinstance(argument, Exception) and not known:
                self.last_error = argument


_handler: Final = _ConnectErrorHandler(logging.WARNING)
logging.getLogger(_CONNECTION_LOGGER).addHandler(_handler)


def reset_connect_error() -> None:
    """Begin anew."""
    _handler.last_error = None


def last_connect_error() -> Exception | None:
    """How the last attempt to connect has failed since `reset_connect_error`; None where nothing is known."""
    return _handler.last_error


def silence_client_logs() -> None:
    """Let the client library log nothing: it logs every attempt, with tracebacks, and what matters is raised."""
    logging.getLogger(_CLIENT_LOGGER).setLevel(logging.CRITICAL + 1)
    connection_logger = logging.getLogger(_CONNECTION_LOGGER)
    connection_logger.setLevel(logging.WARNING)
    connection_logger.propagate = False
