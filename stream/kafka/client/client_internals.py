"""Uses of kafka-python's undocumented parts, which may change with any release; those of `record_batches` apart.

pyproject.toml caps the version, and tests/stream/client/test_client_internals.py names each part that is used here.
"""

import logging
import random
import time
from collections.abc import Collection
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    KafkaConnectionError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import KernelEvent, NetworkSelector
from kafka.structs import OffsetAndMetadata

AUTHENTICATION_ERRORS: Final = (AuthorizationError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError)
"""Errors that another attempt to connect does not fix."""
CLIENT_LOGGER: Final = "kafka"
CONNECTION_LOGGER: Final = "kafka.net.manager"
SLEEP_EVENT: Final = "_sleep"
_POLL_INTERVAL: Final = 0.002


def producer_id(producer: KafkaProducer) -> int:
    """Return the id that the transaction coordinator gave to a transactional producer."""
    found: int = producer._transaction_manager.producer_id_and_epoch.producer_id
    return found


def add_to_transaction(producer: KafkaProducer, partitions: Collection[TopicPartition], timeout: float) -> None:
    """Add partitions to the open transaction and wait for the coordinator; the library adds them on the first record.

    Args:
        timeout: seconds to wait.

    Raises:
        KafkaTimeoutError: the coordinator did not answer in time.
        KafkaError: the transaction has failed.
    """
    manager = producer._transaction_manager
    for partition in partitions:
        manager.maybe_add_partition_to_transaction(partition)
    deadline = time.monotonic() + timeout
    producer._sender.wakeup()
    while not all(manager.is_partition_added(partition) for partition in partitions):
        if manager.has_error():
            raise manager.last_error
        if time.monotonic() > deadline:
            raise KafkaTimeoutError(f"no answer in {timeout:g} s")
        time.sleep(_POLL_INTERVAL)


class CachedTopic(NamedTuple):
    """What a client knows of a topic: its partitions, and its id, which changes if it is recreated."""

    partitions: int
    topic_id: str


def cached_topic(consumer: KafkaConsumer, topic: str) -> CachedTopic | None:
    """Return a topic as of the newest metadata of a consumer that reads it; None if it is missing there."""
    cluster = consumer._cluster
    partitions, topic_id = cluster.partitions_for_topic(topic), cluster.topic_id(topic)
    return CachedTopic(len(partitions), str(topic_id)) if partitions and topic_id is not None else None


def seek(consumer: KafkaConsumer, partition: TopicPartition, offset: int, leader_epoch: int) -> None:
    """Set the offset to read next, and let the client compare the leader epoch of the record before it with the log.

    Args:
        leader_epoch: -1: not known, so nothing is compared.
    """
    consumer.seek(partition, offset)
    consumer._subscription.assignment[partition].seek(OffsetAndMetadata(offset, "", leader_epoch))


def next_offset(consumer: KafkaConsumer, partition: TopicPartition) -> int:
    """Return the offset of the next record to poll, past transaction markers; -1 if the partition was never sought.

    The library's own `position` asks the broker if the leader has changed, and raises if it does not answer.
    """
    assigned = consumer._subscription.assignment.get(partition)
    known = None if assigned is None else assigned.position
    return -1 if known is None else int(known.offset)


def answered_at(consumer: KafkaConsumer) -> float:
    """Return when a broker last answered a consumer at its advertised address, by the monotonic clock; -inf if never.

    The client's own thread asks for metadata every `metadata_max_age_ms`, whether the consumer is polled or not.
    """
    answered: float = consumer._manager.answered_at
    return answered


class BrokerAddress(NamedTuple):
    """Where a broker says that it can be reached."""

    host: str
    port: int


class _ConnectionManager(KafkaConnectionManager):  # type: ignore[misc]
    """Connects to the bootstrap addresses again when the brokers' advertised ones do not answer (KIP-899).

    The library's own manager (kafka-python 3.0.12) asks for metadata only where the last metadata said, so a client
    that was once told a wrong address, or whose brokers have all moved, would try it for ever. It also goes on with a
    connection to an address that a broker no longer advertises, until that breaks: of the clients of one process, some
    would work and some would not. Here it is closed.
    """

    def __init__(self, net: NetworkSelector, **configs: Any) -> None:
        super().__init__(net, **configs)
        self.answered_at = float("-inf")
        """When a broker last answered at its advertised address: one that answers only as bootstrap does no work."""
        self._addresses: dict[int | str, BrokerAddress] = {}

    def least_loaded_node(self) -> int | str | None:
        """Choose a node as the library does; also among the bootstrap addresses if the last request failed."""
        node: int | str | None = super().least_loaded_node()
        cluster = self.cluster
        if node is not None and cluster._last_refresh_ms <= cluster._last_successful_refresh_ms:
            return node
        nodes = [broker.node_id for broker in cluster.bootstrap_brokers()]
        candidates = [each for each in (*nodes, node) if each is not None and not self.connection_delay(each)]
        return random.choice(candidates) if candidates else None

    def get_connection(self, node_id: int | str | None, *args: Any, **options: Any) -> Any:
        """Return a node's connection, as the library does; one to an address of the past is closed after this."""
        node = self.cluster.broker_metadata(node_id)
        old = self._conns.get(node_id)
        connection = super().get_connection(node_id, *args, **options)
        if node_id is not None and node is not None:
            address = BrokerAddress(node.host, node.port)
            if old is not None and self._addresses.get(node_id, address) != address:
                error = KafkaConnectionError(f"node {node_id} advertises another address now")
                self._net.call_soon(lambda: old.close(error))
            self._addresses[node_id] = address
        return connection

    def send(self, request: Any, node_id: int | str | None = None, **options: Any) -> Future:
        """Send a request, and note when a broker answers it."""
        node_id = node_id if node_id is not None else self.least_loaded_node()
        answer = super().send(request, node_id, **options)
        if not self.cluster.is_bootstrap(node_id):
            answer.add_callback(self._on_answer)
        return answer

    def _on_answer(self, answer: object) -> None:
        self.answered_at = time.monotonic()


class NetClients:
    """Makes the network client of a consumer, producer or admin client, and closes it if the block fails.

    A client that does not reach the broker raises from its constructor and leaves the thread and the sockets of its
    network client behind (kafka-python 3.0.12); with an attempt every few seconds, a long outage would exhaust the
    process's descriptors.
    """

    def __init__(self) -> None:
        self._created: list[KafkaNetClient] = []

    def __call__(self, **configs: Any) -> KafkaNetClient:
        """Make a network client; the library's `kafka_client` setting."""
        net = NetworkSelector(**configs)
        self._created.append(KafkaNetClient(net, _ConnectionManager(net, **configs)))
        return self._created[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            # What a client logs while it is closed is not why it did not connect.
            _handler.is_listening = False
            try:
                for client in self._created:
                    client.close()
            finally:
                _handler.is_listening = True

    def advertised_addresses(self) -> list[BrokerAddress]:
        """Return the addresses that the brokers gave in answer to the first request for metadata."""
        return sorted(
            {BrokerAddress(broker.host, broker.port) for client in self._created for broker in client.cluster.brokers()}
        )


def discard_unsent(producer: KafkaProducer) -> None:
    """Close a producer without flushing it.

    `close` calls `flush`, which would block until the interpreter exits and then end in a traceback.
    """
    producer.flush = lambda timeout=None: None
    producer.close(timeout=0)


async def sleep(seconds: float) -> None:
    """Suspend a rebalance callback, while the client's event loop keeps sending heartbeats."""
    await KernelEvent(SLEEP_EVENT, seconds)


class _ConnectErrorHandler(logging.Handler):
    """Keeps the last error that the client logged while connecting: it raises no more than a timeout."""

    last_error: Exception | None = None
    is_listening = True

    def emit(self, record: logging.LogRecord) -> None:
        for argument in record.args if self.is_listening and isinstance(record.args, tuple) else ():
            # A timeout follows its cause, and must not replace it.
            if isinstance(argument, KafkaTimeoutError) or isinstance(self.last_error, AUTHENTICATION_ERRORS):
                continue
            if isinstance(argument, Exception):
                self.last_error = argument


_handler: Final = _ConnectErrorHandler(logging.WARNING)
logging.getLogger(CONNECTION_LOGGER).addHandler(_handler)


def reset_connect_error() -> None:
    """Forget the error of earlier attempts to connect."""
    _handler.last_error = None


def last_connect_error() -> Exception | None:
    """Return the error of the last attempt to connect since `reset_connect_error`; None if it is not known."""
    return _handler.last_error


def silence_client_logs() -> None:
    """Disable the client's own logs: it logs every attempt with a traceback, and raises what matters."""
    logging.getLogger(CLIENT_LOGGER).setLevel(logging.CRITICAL + 1)
    connection_logger = logging.getLogger(CONNECTION_LOGGER)
    connection_logger.setLevel(logging.WARNING)
    connection_logger.propagate = False
