"""Connections to a broker: every client of the program is made here."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from state.errors import PrectrError

_FETCH_BYTES: Final = 16 << 20
_MAX_REQUEST_BYTES: Final = 9 << 20


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the broker is and how to speak to it.

    bootstrap: host:port, several with commas. settings: kafka-python client settings, such as security_protocol.
    """

    bootstrap: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def consumer(self, **more: Any) -> KafkaConsumer:
        """A consumer that reads what is committed, from the beginning, and commits nothing by itself."""
        return self._made(
            KafkaConsumer,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=100,
            **more,
        )

    def producer(self, **more: Any) -> KafkaProducer:
        """A producer that loses and repeats nothing."""
        return self._made(
            KafkaProducer,
            acks="all",
            compression_type="lz4",
            linger_ms=5,
            batch_size=1 << 18,
            max_request_size=_MAX_REQUEST_BYTES,
            **more,
        )

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """An admin client, closed at the end."""
        client = self._made(KafkaAdminClient)
        try:
            yield client
        finally:
            client.close()

    def _made(self, client: Any, **settings: Any) -> Any:
        try:
            return client(bootstrap_servers=self.bootstrap.split(","), **settings, **self.settings)
        except KafkaError as error:
            raise PrectrError(
                f"{self.bootstrap}: no answer from Kafka ({error}): is the broker running, and is --bootstrap right?"
            ) from error
