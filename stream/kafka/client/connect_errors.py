"""Why the client library could not connect: it only logs that, and raises a timeout."""

import logging
from typing import Final

from kafka.errors import (
    AuthorizationError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

LOGIN_REFUSED: Final = (AuthorizationError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError)
"""What no further attempt mends."""
_CLIENT: Final = "kafka"
_CONNECTIONS: Final = "kafka.net.manager"


class _Attempts(logging.Handler):
    """Keeps the last error of an attempt to connect."""

    last: Exception | None = None

    def emit(self, record: logging.LogRecord) -> None:
        for argument in record.args if isinstance(record.args, tuple) else ():
            # Timeouts follow, and say nothing of why.
            known = isinstance(argument, KafkaTimeoutError) or isinstance(self.last, LOGIN_REFUSED)
            if isinstance(argument, Exception) and not known:
                self.last = argument


_attempts: Final = _Attempts(logging.WARNING)
logging.getLogger(_CONNECTIONS).addHandler(_attempts)


def forget_attempts() -> None:
    """Begin anew."""
    _attempts.last = None


def last_attempt() -> Exception | None:
    """How the last attempt to connect has failed since `forget_attempts`; None where nothing is known."""
    return _attempts.last


def be_quiet() -> None:
    """Let the client library log nothing: it logs every attempt, with tracebacks, and what matters is raised."""
    logging.getLogger(_CLIENT).setLevel(logging.CRITICAL + 1)
    connections = logging.getLogger(_CONNECTIONS)
    connections.setLevel(logging.WARNING)
    connections.propagate = False
