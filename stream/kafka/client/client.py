"""Connection settings of a broker; every Kafka client of the program is created here."""

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
from kafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    KafkaTimeoutError,
    RetriableError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
)

from prectr.state.errors import BrokerUnavailableError, ConfigError, PrectrError, Remedy
from prectr.stream.kafka.client.advertised_listeners import unreachable_listeners
from prectr.stream.kafka.client.client_internals import (
    AUTHENTICATION_ERRORS,
    NetClients,
    discard_unsent,
    last_connect_error,
    reset_connect_error,
)
from prectr.stream.kafka.client.reachability import METADATA_MAX_AGE_MS, watch
from prectr.stream.kafka.client.record_batches import parse_compiled

_MAX_PARTITION_FETCH_BYTES: Final = 16 << 20
_MAX_REQUEST_BYTES: Final = 64 << 20
"""Counted before compression, so far above a topic's limit: a record that other programs compressed well into the
events topic must fit whole into the dead letters."""
_FIRST_ATTEMPT_MS: Final = 2_000
"""Timeout of the first attempt to connect, doubled for each further one: the cause of a failure is known only at the
end of an attempt, and a busy broker may need longer than this to answer."""
_MAX_RECONNECT_BACKOFF_MS: Final = 1_000
"""Longest pause between attempts to reach a lost broker; the library's default of 30 s would prolong every outage."""
_LOG_INTERVAL: Final = 60.0
"""Seconds between two log messages while the broker does not answer."""
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
"""Settings on which exactly-once processing depends."""
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
"""Settings that are Python objects, which a file cannot supply."""
_PROXY_SETTINGS: Final = ("proxy_url", "socks5_proxy")
_SECRET_NAME: Final = re.compile("password|proxy")
_BROKER_ERROR_MESSAGE: Final = re.compile(r"""error_message=(['"])(.+?)\1""")
_READY_TIMEOUT: Final = 20.0
_RETRY_BACKOFF: Final = 0.3
Result = TypeVar("Result")
_log = logging.getLogger(__name__)
_RIGHTS: Final[Mapping[type[KafkaError], str]] = {
    TopicAuthorizationFailedError: "; an ACL must allow this client Describe, Read and Write on the topic",
    GroupAuthorizationFailedError: "; an ACL must allow this client Describe and Read on the group",
    TransactionalIdAuthorizationFailedError: "; an ACL must allow this client Describe and Write on the id",
    ClusterAuthorizationFailedError: "; an ACL must allow this client Describe and IdempotentWrite on the cluster",
}
"""By error, the rights that are missing: the broker names the resource at most."""
_logged_at: Final[dict[tuple[str, str], float]] = {}
"""When a problem of an address was last logged by this process."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Address and client settings of a Kafka cluster.

    Attributes:
        bootstrap: host:port, several separated by commas; also with blanks, or with a listener's name as in
            PLAINTEXT://host:port, which are dropped.
        settings: kafka-python client settings, such as security_protocol.
        connect_timeout: seconds to keep trying while the broker does not answer.

    Raises:
        ConfigError: a setting is unknown, has the wrong type or is reserved for the program. The message never has a
            value: it may be a secret.
    """

    bootstrap: str
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    connect_timeout: float = 5.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "bootstrap", _normalise_bootstrap(self.bootstrap))
        known = known_settings()
        for name, value in self.settings.items():
            if name in _RESERVED_SETTINGS:
                raise ConfigError(
                    f"client setting {name}: exactly-once processing depends on it, so it cannot be set: remove it"
                )
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" (the nearest is {near[0]})" if near else ""
                raise ConfigError(
                    f"client setting {name}: kafka-python has no such setting{hint}: remove or correct it"
                )
            if name in _OBJECT_SETTINGS:
                raise ConfigError(f"client setting {name}: a Python object, which a file cannot supply: remove it")
            expected = _expected_type(name, known[name])
            if expected is not None and (
                not isinstance(value, expected) or isinstance(value, bool) != (expected is bool)
            ):
                found = type(value).__name__
                raise ConfigError(f"client setting {name}: must be {_TYPE_NAMES[expected]}, but is of type {found}")

    def consumer(self, **overrides: Any) -> KafkaConsumer:
        """Create a consumer that reads committed records from the beginning and never commits offsets automatically."""
        defaults = {
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": "read_committed",
            "allow_auto_create_topics": False,
            "max_partition_fetch_bytes": _MAX_PARTITION_FETCH_BYTES,
            "fetch_max_wait_ms": 100,
            "reconnect_backoff_max_ms": _MAX_RECONNECT_BACKOFF_MS,
        }
        consumer = self._connect(KafkaConsumer, defaults | overrides)
        parse_compiled(consumer)
        return consumer

    def watched_consumer(self, **overrides: Any) -> KafkaConsumer:
        """Create a long-lived consumer of no group that tells when topics change and when the broker is unreachable."""
        consumer = self.consumer(group_id=None, metadata_max_age_ms=METADATA_MAX_AGE_MS, **overrides)
        watch(consumer)
        return consumer

    def producer(self, **overrides: Any) -> KafkaProducer:
        """Create an idempotent producer that waits for all replicas."""
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
        """Create an admin client."""
        return self._connect(KafkaAdminClient, {})

    def call_admin(self, request: Callable[[KafkaAdminClient], Result]) -> Result:
        """Send a request through an admin client, and retry it while the broker is not ready.

        Raises:
            PrectrError: the broker does not answer, or rejects the request.
        """
        client = self.admin()
        started = time.monotonic()
        try:
            with self.translate_errors():
                while True:
                    try:
                        return request(client)
                    except RetriableError:
                        # A broker that has just started has no group coordinator for a few seconds.
                        remaining = max(self.connect_timeout, _READY_TIMEOUT) - (time.monotonic() - started)
                        if remaining < 0:
                            raise
                        self._log_retry("Kafka is not ready", remaining)
                        time.sleep(_RETRY_BACKOFF)
        finally:
            client.close()

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Translate an error of the client library into a PrectrError."""
        try:
            yield
        except KafkaError as error:
            raise PrectrError(
                f"{self.describe_error(error)}; nothing committed is lost: fix this and rerun the command to resume"
            ) from error

    def describe_error(self, error: Exception) -> str:
        """Describe an error of the client library in one line, without any secret of the settings."""
        right = next((right for kind, right in _RIGHTS.items() if isinstance(error, kind)), "")
        return f"{self.bootstrap}: Kafka reports {self._error_text(error)}{right}"

    def _connect(self, client: Any, settings: Mapping[str, Any]) -> Any:
        user_settings = {name: value for name, value in self.settings.items() if name in client.DEFAULT_CONFIG}
        started = time.monotonic()
        attempt_ms = _FIRST_ATTEMPT_MS
        while True:
            remaining = self.connect_timeout - (time.monotonic() - started)
            reset_connect_error()
            timeout_ms = round(min(attempt_ms, max(remaining * 1000, 500)))
            try:
                return self._attempt(client, {"bootstrap_timeout_ms": timeout_ms, **settings, **user_settings})
            except (KafkaTimeoutError, BrokerUnavailableError) as error:
                self._wait_for_retry(error, remaining)
                attempt_ms *= 2
            except (KafkaError, ValueError, TypeError, AssertionError, OSError) as error:
                raise PrectrError(
                    f"{self.bootstrap}: no connection to Kafka ({self._error_text(error)})", Remedy.CHECK_CONNECTION
                ) from error

    def _attempt(self, client: Any, settings: Mapping[str, Any]) -> Any:
        """Create a client.

        Raises:
            BrokerUnavailableError: the brokers advertise addresses of which none can be reached.
        """
        with NetClients() as net_clients:
            created = client(bootstrap_servers=self.bootstrap.split(","), kafka_client=net_clients, **settings)
            if not any(self.settings.get(name) for name in _PROXY_SETTINGS):
                unreachable = unreachable_listeners(net_clients.advertised_addresses())
                if unreachable:
                    _close(created)
                    raise BrokerUnavailableError(
                        f"{self.bootstrap}: Kafka answers there, but its brokers advertise {unreachable}, which cannot "
                        "be reached from here",
                        Remedy.ADVERTISED_LISTENERS,
                    )
            return created

    def _wait_for_retry(self, error: Exception, remaining: float) -> None:
        """Wait until the next attempt to connect; raises PrectrError if there is no point in one.

        Args:
            remaining: seconds that attempts may still take.
        """
        last_error = last_connect_error()
        if isinstance(last_error, AUTHENTICATION_ERRORS):
            raise PrectrError(
                f"{self.bootstrap}: Kafka rejects the login ({self._error_text(last_error)})",
                Remedy.CHECK_CREDENTIALS,
            ) from error
        if isinstance(error, BrokerUnavailableError):
            if remaining <= 0:
                raise error
            self._log_retry(error.message.removeprefix(f"{self.bootstrap}: "), remaining)
            time.sleep(_RETRY_BACKOFF)
            return
        if remaining <= 0:
            detail = f" (the last attempt: {self._error_text(last_error)})" if last_error is not None else ""
            raise BrokerUnavailableError(
                f"{self.bootstrap}: no answer from Kafka in {self.connect_timeout:g} s{detail}",
                Remedy.CHECK_CONNECTION,
                Remedy.LONGER_CONNECT_TIMEOUT,
            ) from error
        self._log_retry("no answer from Kafka", remaining)

    def _log_retry(self, problem: str, remaining: float) -> None:
        """Log a problem, at most once a minute for all connections of the process: an outage takes many attempts."""
        now = time.monotonic()
        if now - _logged_at.get((self.bootstrap, problem), float("-inf")) >= _LOG_INTERVAL:
            _logged_at[self.bootstrap, problem] = now
            _log.warning("%s: %s, retrying for another %.0f s", self.bootstrap, problem, remaining)

    def _error_text(self, error: Exception) -> str:
        """Return an error's type and text in one line, without any secret of the settings."""
        text = " ".join(str(error).split())
        if match := _BROKER_ERROR_MESSAGE.search(text):
            # The full text has the whole request and the whole response.
            text = match.group(2)
        for name, value in self.settings.items():
            if _SECRET_NAME.search(name) and value:
                text = text.replace(str(value), "***")
        kind = type(error).__name__
        return text if text.startswith(kind) else f"{kind}: {text}" if text else kind


def _normalise_bootstrap(text: str) -> str:
    """Return a list of addresses as host:port, separated by commas.

    Raises:
        ConfigError: one of them is not an address.
    """
    addresses = [part.strip().rpartition("://")[2].rstrip("/") for part in text.split(",") if part.strip()]
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16 or re.search(r"[\s/@]", host):
            raise ConfigError(f"{address!r} is not the address of a Kafka broker: it is host:port, such as kafka:9092")
    if not addresses:
        raise ConfigError("no address of a Kafka broker is given: it is host:port, such as kafka:9092")
    return ",".join(addresses)


def _close(client: Any) -> None:
    """Close a client that has sent nothing."""
    if isinstance(client, KafkaProducer):
        discard_unsent(client)
    else:
        client.close()


def close_producer(producer: KafkaProducer, seconds: float) -> None:
    """Close a producer; records that are not delivered within `seconds` are dropped."""
    try:
        producer.close(timeout=seconds)
    except KafkaError:
        discard_unsent(producer)


_TYPE_NAMES: Final[Mapping[type | UnionType, str]] = {
    bool: "true or false",
    int | float: "a number",
    str: "text, in quotes",
}


def known_settings() -> dict[str, Any]:
    """Return every setting of kafka-python's clients with its default."""
    return {
        name: value
        for client in (KafkaAdminClient, KafkaProducer, KafkaConsumer)
        for name, value in client.DEFAULT_CONFIG.items()
    }


def _expected_type(name: str, default: object) -> type | UnionType | None:
    """Return the type of a setting; None if the client accepts several."""
    if isinstance(default, bool):
        return bool
    if isinstance(default, int | float) or name.endswith("_buffer_bytes"):
        return int | float
    if isinstance(default, str) or _SECRET_NAME.search(name) or name.startswith(("ssl_", "sasl_plain", "sasl_mech")):
        return str
    return None
