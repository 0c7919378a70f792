"""Connections to a broker: every client of the program is made here."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, RetriableError

from state.errors import ConfigError, PrectrError

_FETCH_BYTES: Final = 16 << 20
_MAX_REQUEST_BYTES: Final = 9 << 20
_ATTEMPT_MS: Final = 2_000
_SAY_EVERY: Final = 10.0
"""Seconds between two messages while the broker does not answer."""
_OURS: Final = frozenset(
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
_READY_SECONDS: Final = 20.0
_ASK_AGAIN: Final = 0.3
Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the broker is and how to speak to it.

    bootstrap: host:port, several with commas. settings: kafka-python client settings, such as security_protocol.
    wait: seconds to go on trying while the broker does not answer.

    Raises:
        ConfigError: a setting that no client knows, or that is the program's own to make.
    """

    bootstrap: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    wait: float = 5.0

    def __post_init__(self) -> None:
        known = {name for client in (KafkaConsumer, KafkaProducer, KafkaAdminClient) for name in client.DEFAULT_CONFIG}
        for name in self.settings:
            if name in _OURS:
                raise ConfigError(f"client setting {name}: exactly once depends on it, so it cannot be set: remove it")
            if name not in known:
                raise ConfigError(f"client setting {name}: kafka-python knows none of that name: remove or correct it")

    def consumer(self, **more: Any) -> KafkaConsumer:
        """A consumer that reads what is committed, from the beginning, and commits nothing by itself."""
        ours = {
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": "read_committed",
            "allow_auto_create_topics": False,
            "max_partition_fetch_bytes": _FETCH_BYTES,
            "fetch_max_wait_ms": 100,
        }
        return self._made(KafkaConsumer, ours | more)

    def producer(self, **more: Any) -> KafkaProducer:
        """A producer that loses and repeats nothing."""
        ours = {
            "acks": "all",
            "compression_type": "lz4",
            "linger_ms": 5,
            "batch_size": 1 << 18,
            "max_request_size": _MAX_REQUEST_BYTES,
        }
        return self._made(KafkaProducer, ours | more)

    def ask(self, question: Callable[[KafkaAdminClient], Answer]) -> Answer:
        """Ask the broker something as an administrator, again where it is not ready to answer yet.

        Raises:
            PrectrError: it does not answer, or refuses.
        """
        client = self._made(KafkaAdminClient, {})
        begun = time.monotonic()
        try:
            with self.errors():
                while True:
                    try:
                        return question(client)
                    except RetriableError:
                        # A broker that has just started has no group coordinator for some seconds.
                        if time.monotonic() - begun > max(self.wait, _READY_SECONDS):
                            raise
                        time.sleep(_ASK_AGAIN)
        finally:
            client.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the client library raises into an error of ours."""
        try:
            yield
        except KafkaError as error:
            raise PrectrError(
                f"{self.bootstrap}: Kafka says {_words(error)}: nothing committed is lost; once that is mended, "
                "the same command goes on"
            ) from error

    def _made(self, client: Any, ours: Mapping[str, Any]) -> Any:
        theirs = {name: value for name, value in self.settings.items() if name in client.DEFAULT_CONFIG}
        begun = said = time.monotonic()
        while True:
            left = self.wait - (time.monotonic() - begun)
            try:
                return client(
                    bootstrap_servers=self.bootstrap.split(","),
                    **{"bootstrap_timeout_ms": round(min(_ATTEMPT_MS, max(left * 1000, 500))), **ours, **theirs},
                )
            except KafkaTimeoutError as error:
                if left <= 0:
                    raise PrectrError(
                        f"{self.bootstrap}: no answer from Kafka in {self.wait:g} s: is the broker running, and is "
                        "--bootstrap right? --wait gives it more time"
                    ) from error
                if time.monotonic() - said >= _SAY_EVERY:
                    said = time.monotonic()
                    _log.warning("%s: no answer from Kafka, trying for another %.0f s", self.bootstrap, left)
            except (KafkaError, ValueError, TypeError, AssertionError, OSError) as error:
                raise PrectrError(
                    f"{self.bootstrap}: no connection to Kafka ({_words(error)}): check --bootstrap and the client "
                    "settings"
                ) from error


def _words(error: Exception) -> str:
    """An error's type and text in one line."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    return text if text.startswith(name) else f"{name}: {text}" if text else name
