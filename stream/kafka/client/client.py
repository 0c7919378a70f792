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

from prectr.state.errors import BrokerAway, ConfigError, PrectrError
from prectr.stream.kafka.client.connect_errors import LOGIN_REFUSED, forget_attempts, last_attempt

_FETCH_BYTES: Final = 16 << 20
_MAX_REQUEST_BYTES: Final = 64 << 20
"""Of what a producer sends at once. Counted before compression, so far above what a topic takes: a record that
others have compressed well into the events must fit into the dead letters, whole."""
_ATTEMPT_MS: Final = 2_000
"""Of the first attempt to connect, twice as many each time: why one has failed is known only when it is over, and a
busy broker may need longer than this to answer."""
_RECONNECT_MS: Final = 1_000
"""Between two attempts to reach a broker that has gone, at the most: the library's 30 s are added to every outage."""
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
_NO_TEXT: Final = frozenset(
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
_SECRET: Final = re.compile("password|proxy")
_BROKERS_WORDS: Final = re.compile(r"""error_message=(['"])(.+?)\1""")
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
        ConfigError: a setting that no client knows, of a wrong type, or that is the program's own to make. Never says
            a value: it may be a secret.
    """

    bootstrap: str
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    wait: float = 5.0

    def __post_init__(self) -> None:
        known = known_settings()
        for name, value in self.settings.items():
            if name in _OURS:
                raise ConfigError(f"client setting {name}: exactly once depends on it, so it cannot be set: remove it")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" (the nearest is {near[0]})" if near else ""
                raise ConfigError(
                    f"client setting {name}: kafka-python knows none of that name{hint}: remove or correct it"
                )
            if name in _NO_TEXT:
                raise ConfigError(f"client setting {name}: an object of Python, which no file can give: remove it")
            wanted = _kind(name, known[name])
            if wanted is not None and (not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool)):
                found = type(value).__name__
                raise ConfigError(f"client setting {name}: must be {_KINDS[wanted]}, and is of type {found}")

    def consumer(self, **more: Any) -> KafkaConsumer:
        """A consumer that reads what is committed, from the beginning, and commits nothing by itself."""
        ours = {
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": "read_committed",
            "allow_auto_create_topics": False,
            "max_partition_fetch_bytes": _FETCH_BYTES,
            "fetch_max_wait_ms": 100,
            "reconnect_backoff_max_ms": _RECONNECT_MS,
        }
        return self._made(KafkaConsumer, ours | more)

    def producer(self, **more: Any) -> KafkaProducer:
        """A producer that loses and repeats nothing."""
        ours = {
            "acks": "all",
            "compression_type": "lz4",
            "linger_ms": 5,
            "reconnect_backoff_max_ms": _RECONNECT_MS,
            "batch_size": 1 << 18,
            "max_request_size": _MAX_REQUEST_BYTES,
        }
        return self._made(KafkaProducer, ours | more)

    def admin(self) -> KafkaAdminClient:
        """An administrator's client."""
        return self._made(KafkaAdminClient, {})

    def ask(self, question: Callable[[KafkaAdminClient], Answer]) -> Answer:
        """Ask the broker something as an administrator, again where it is not ready to answer yet.

        Raises:
            PrectrError: it does not answer, or refuses.
        """
        client = self.admin()
        begun = said = time.monotonic()
        try:
            with self.errors():
                while True:
                    try:
                        return question(client)
                    except RetriableError:
                        # A broker that has just started has no group coordinator for some seconds.
                        left = max(self.wait, _READY_SECONDS) - (time.monotonic() - begun)
                        if left < 0:
                            raise
                        said = self._say(said, "Kafka is not ready", left)
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
                f"{self.told(error)}: nothing committed is lost; once that is mended, the same command goes on"
            ) from error

    def told(self, error: Exception) -> str:
        """What the client library says, in one line, without any secret of the settings."""
        return f"{self.bootstrap}: Kafka says {self._words(error)}"

    def _made(self, client: Any, ours: Mapping[str, Any]) -> Any:
        theirs = {name: value for name, value in self.settings.items() if name in client.DEFAULT_CONFIG}
        begun = time.monotonic()
        said = float("-inf")
        attempt_ms = _ATTEMPT_MS
        while True:
            left = self.wait - (time.monotonic() - begun)
            forget_attempts()
            try:
                return client(
                    bootstrap_servers=self.bootstrap.split(","),
                    **{"bootstrap_timeout_ms": round(min(attempt_ms, max(left * 1000, 500))), **ours, **theirs},
                )
            except KafkaTimeoutError as error:
                last = last_attempt()
                if isinstance(last, LOGIN_REFUSED):
                    raise PrectrError(
                        f"{self.bootstrap}: Kafka refuses the login ({self._words(last)}): check the sasl_ settings of "
                        "--client-config"
                    ) from error
                if left <= 0:
                    how = f" (the last attempt: {self._words(last)})" if last is not None else ""
                    raise BrokerAway(
                        f"{self.bootstrap}: no answer from Kafka in {self.wait:g} s{how}: is the broker running, and "
                        "are --bootstrap and the security settings of --client-config right? --wait gives it more time"
                    ) from error
                said = self._say(said, "no answer from Kafka", left)
                attempt_ms *= 2
            except (KafkaError, ValueError, TypeError, AssertionError, OSError) as error:
                raise PrectrError(
                    f"{self.bootstrap}: no connection to Kafka ({self._words(error)}): check --bootstrap and the "
                    "client settings"
                ) from error

    def _say(self, said: float, what: str, left: float) -> float:
        """Log what is wrong, every 10 s; returns when it was last said."""
        if time.monotonic() - said < _SAY_EVERY:
            return said
        _log.warning("%s: %s, trying for another %.0f s", self.bootstrap, what, left)
        return time.monotonic()

    def _words(self, error: Exception) -> str:
        """An error's type and text in one line, without any secret of the settings."""
        text = " ".join(str(error).split())
        if told := _BROKERS_WORDS.search(text):
            # Else the whole request and its whole answer would be the message.
            text = told.group(2)
        for name, value in self.settings.items():
            if _SECRET.search(name) and value:
                text = text.replace(str(value), "***")
        kind = type(error).__name__
        return text if text.startswith(kind) else f"{kind}: {text}" if text else kind


def let_go(producer: KafkaProducer, seconds: float) -> None:
    """Close a producer, which has so many seconds for what is still on the way; what is left then is dropped."""
    try:
        producer.close(timeout=seconds)
    except KafkaError:
        # It would wait for the rest once more as the interpreter ends, and end that in a traceback.
        producer.flush = lambda timeout=None: None
        producer.close(timeout=0)


_KINDS: Final[Mapping[type | UnionType, str]] = {
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


def _kind(name: str, default: object) -> type | UnionType | None:
    """What a setting's value must be; None where anything goes that the client takes."""
    if isinstance(default, bool):
        return bool
    if isinstance(default, int | float) or name.endswith("_buffer_bytes"):
        return int | float
    if isinstance(default, str) or _SECRET.search(name) or name.startswith(("ssl_", "sasl_plain", "sasl_mech")):
        return str
    return None
