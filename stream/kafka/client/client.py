"""Connections to a broker: every client of the program is made here."""

import difflib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Final, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, RetriableError

from prectr.state.errors import BrokerUnavailableError, ConfigError, PrectrError
from prectr.stream.kafka.client.connect_errors import AUTHENTICATION_ERRORS, last_connect_error, reset_connect_error

_MAX_PARTITION_FETCH_BYTES: Final = 16 << 20
_MAX_REQUEST_BYTES: Final = 64 << 20
"""Of what a producer sends at once. Counted before compression, so far above what a topic takes: a record that
others have compressed well into the events must fit into the dead letters, whole."""
_FIRST_ATTEMPT_MS: Final = 2_000
"""Of the first attempt to connect, twice as many each time: why one has failed is known only when it is over, and a
busy broker may need longer than this to answer."""
_MAX_RECONNECT_BACKOFF_MS: Final = 1_000
"""Between two attempts to reach a broker that has gone, at the most: the library's 30 s are added to every outage."""
_LOG_INTERVAL: Final = 10.0
"""Seconds between two messages while the broker does not answer."""
_RESERVED_SETTINGS: Final = frozenset(
    {
        "acks",
        "auto_offset_reset",
        "bootstrap_servers",
        "enable_auto_commit",
        "enable_idempotence",
        "group_id",
        "isolation_level",
        "key_deserializer",
        "key_serializer",
        "partitioner",
        "transactional_id",
        "value_deserializer",
        "value_serializer",
    }
)
"""Settings on which exactly once depends."""
_OBJECT_SETTINGS: Final = frozenset(
    {
        "default_offset_commit_callback",
        "kafka_client",
        "metric_reporters",
        "partition_assignment_strategy",
        "selector",
        "socket_options",
        "ssl_context",
    }
)
"""Settings that are objects of Python, which no file can give."""
_SECRET_NAME: Final = re.compile("password|proxy")
_BROKER_ERROR_MESSAGE: Final = re.compile(r"""error_message=(['"])(.+?)\1""")
_READY_TIMEOUT: Final = 20.0
_RETRY_BACKOFF: Final = 0.3
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the broker is and how to speak to it.

    bootstrap: host:port, several with commas. settings: kafka-python client settings, such as security_protocol.
    wait: seconds to go on trying while the broker does not answer.

    Raises:
        ConfigError: a setting that no client knows, of a wrong type, or that is the program's own to make. Never says
            a value: it may be a secret.
    """

    bootstrap: str
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    connect_timeout: float = 5.0

    def __post_init__(self) -> None:
        known = known_settings()
        for name, value in self.settings.items():
            if name in _RESERVED_SETTINGS:
                raise ConfigError(f"client setting {name}: exactly once depends on it, so it cannot be set: remove it")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" (the nearest is {near[0]})" if near else ""
                raise ConfigError(
                    f"client setting {name}: kafka-python knows none of that name{hint}: remove or correct it"
                )
            if name in _OBJECT_SETTINGS:
                raise ConfigError(f"client setting {name}: an object of Python, which no file can give: remove it")
            expected = _expected_type(name, known[name])
            if expected is not None and (
                not isinstance(value, expected) or isinstance(value, bool) != (expected is bool)
            ):
                found = type(value).__name__
                raise ConfigError(f"client setting {name}: must be {_TYPE_NAMES[expected]}, and is of type {found}")

    def consumer(self, **overrides: Any) -> KafkaConsumer:
        """A consumer that reads what is committed, from the beginning, and commits nothing by itself."""
        defaults = {
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": "read_committed",
            "allow_auto_create_topics": False,
            "max_partition_fetch_bytes": _MAX_PARTITION_FETCH_BYTES,
            "fetch_max_wait_ms": 100,
            "reconnect_backoff_max_ms": _MAX_RECONNECT_BACKOFF_MS,
        }
        return self._connect(KafkaConsumer, defaults | overrides)

    def producer(self, **overrides: Any) -> KafkaProducer:
        """A producer that loses and repeats nothing."""
        defaults = {
            "acks": "all",
            "compression_type": "lz4",
            "linger_ms": 5,
            "reconnect_backoff_max_ms": _MAX_RECONNECT_BACKOFF_MS,
            "batch_size": 1 << 18,
            "max_request_size": _MAX_REQUEST_BYTES,
        }
        return self._connect(KafkaProducer, defaults | overrides)

    def admin(self) -> KafkaAdminClient:
        """An administrator's client."""
        return self._connect(KafkaAdminClient, {})

    def call_admin(self, request: Callable[[KafkaAdminClient], Result]) -> Result:
        """Ask the broker something as an administrator, again where it is not ready to answer yet.

        Raises:
            PrectrError: it does not answer, or refuses.
        """
        client = self.admin()
        started = last_logged = time.monotonic()
        try:
            with self.translate_errors():
                while True:
                    try:
                        return request(client)
                    except RetriableError:
                        # A broker that has just started has no group coordinator for some seconds.
                        remaining = max(self.connect_timeout, _READY_TIMEOUT) - (time.monotonic() - started)
                        if remaining < 0:
                            raise
                        last_logged = self._log_retry(last_logged, "Kafka is not ready", remaining)
                        time.sleep(_RETRY_BACKOFF)
        finally:
            client.close()

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn what the client library raises into an error of ours."""
        try:
            yield
        except KafkaError as error:
            raise PrectrError(
                f"{self.describe_error(error)}: nothing committed is lost; once that is mended, the same command goes on"
            ) from error

    def describe_error(self, error: Exception) -> str:
        """What the client library says, in one line, without any secret of the settings."""
        return f"{self.bootstrap}: Kafka says {self._error_text(error)}"

    def _connect(self, client: Any, settings: Mapping[str, Any]) -> Any:
        user_settings = {name: value for name, value in self.settings.items() if name in client.DEFAULT_CONFIG}
        started = time.monotonic()
        last_logged = float("-inf")
        attempt_ms = _FIRST_ATTEMPT_MS
        while True:
            remaining = self.connect_timeout - (time.monotonic() - started)
            reset_connect_error()
            try:
                return client(
                    bootstrap_servers=self.bootstrap.split(","),
                    **{
                        "bootstrap_timeout_ms": round(min(attempt_ms, max(remaining * 1000, 500))),
                        **settings,
                        **user_settings,
                    },
                )
            except KafkaTimeoutError as error:
                last_error = last_connect_error()
                if isinstance(last_error, AUTHENTICATION_ERRORS):
                    raise PrectrError(
                        f"{self.bootstrap}: Kafka refuses the login ({self._error_text(last_error)}): check the sasl_ settings of "
                        "--client-config"
                    ) from error
                if remaining <= 0:
                    detail = f" (the last attempt: {self._error_text(last_error)})" if last_error is not None else ""
                    raise BrokerUnavailableError(
                        f"{self.bootstrap}: no answer from Kafka in {self.connect_timeout:g} s{detail}: is the broker running, and "
                        "are --bootstrap and the security settings of --client-config right? --connect-timeout gives it more time"
                    ) from error
                last_logged = self._log_retry(last_logged, "no answer from Kafka", remaining)
                attempt_ms *= 2
            except (KafkaError, ValueError, TypeError, AssertionError, OSError) as error:
                raise PrectrError(
                    f"{self.bootstrap}: no connection to Kafka ({self._error_text(error)}): check --bootstrap and the "
                    "client settings"
                ) from error

    def _log_retry(self, last_logged: float, problem: str, remaining: float) -> float:
        """Log what is wrong, every 10 s; returns when it was last said."""
        if time.monotonic() - last_logged < _LOG_INTERVAL:
            return last_logged
        _log.warning("%s: %s, trying for another %.0f s", self.bootstrap, problem, remaining)
        return time.monotonic()

    def _error_text(self, error: Exception) -> str:
        """An error's type and text in one line, without any secret of the settings."""
        text = " ".join(str(error).split())
        if match := _BROKER_ERROR_MESSAGE.search(text):
            # Else the whole request and its whole answer would be the message.
            text = match.group(2)
        for name, value in self.settings.items():
            if _SECRET_NAME.search(name) and value:
                text = text.replace(str(value), "***")
        kind = type(error).__name__
        return text if text.startswith(kind) else f"{kind}: {text}" if text else kind


def close_producer(producer: KafkaProducer, seconds: float) -> None:
    """Close a producer, which has so many seconds for what is still on the way; what is left then is dropped."""
    try:
        producer.close(timeout=seconds)
    except KafkaError:
        # It would wait for the rest once more as the interpreter ends, and end that in a traceback.
        producer.flush = lambda timeout=None: None
        producer.close(timeout=0)


_TYPE_NAMES: Final[Mapping[type | UnionType, str]] = {
    bool: "true or false",
    int | float: "a number",
    str: "text, in quotes",
}


def known_settings() -> dict[str, Any]:
    """Every setting that a client of kafka-python has, with its default."""
    return {
        name: value
        for client in (KafkaAdminClient, KafkaProducer, KafkaConsumer)
        for name, value in client.DEFAULT_CONFIG.items()
    }


def _expected_type(name: str, default: object) -> type | UnionType | None:
    """What a setting's value must be; None where anything goes that the client takes."""
    if isinstance(default, bool):
        return bool
    if isinstance(default, int | float) or name.endswith("_buffer_bytes"):
        return int | float
    if isinstance(default, str) or _SECRET_NAME.search(name) or name.startswith(("ssl_", "sasl_plain", "sasl_mech")):
        return str
    return None
