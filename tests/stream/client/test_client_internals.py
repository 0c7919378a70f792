"""The private parts of kafka-python that the program uses exist in the installed version, and are used in two files."""

import ast
import inspect
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import kafka
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.cluster import ClusterMetadata
from kafka.consumer.fetcher import Fetcher
from kafka.consumer.subscription_state import SubscriptionState
from kafka.errors import KafkaConnectionError, KafkaTimeoutError, SaslAuthenticationFailedError
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import TransactionManager
from kafka.record.default_records import DefaultRecordBatch

from prectr.stream.kafka.client import client_internals, record_batches
from prectr.stream.kafka.client.client_internals import (
    CLIENT_LOGGER,
    CONNECTION_LOGGER,
    SLEEP_EVENT,
    NetClients,
    last_connect_error,
    reset_connect_error,
)

PRIVATE_PARTS = [
    (DefaultRecordBatch, "_buffer"),
    (Fetcher, "PartitionRecords"),
    (Fetcher.PartitionRecords, "_consume_aborted_transactions_up_to"),
    (Fetcher.PartitionRecords, "_contains_abort_marker"),
    (Fetcher.PartitionRecords, "_is_batch_aborted"),
    (Fetcher.PartitionRecords, "_unpack_records"),
    (Fetcher.PartitionRecords, "aborted_producer_ids"),
    (Fetcher.PartitionRecords, "bytes_read"),
    (Fetcher.PartitionRecords, "check_crcs"),
    (Fetcher.PartitionRecords, "drain"),
    (Fetcher.PartitionRecords, "isolation_level"),
    (Fetcher.PartitionRecords, "leader_epoch"),
    (Fetcher.PartitionRecords, "next_fetch_offset"),
    (Fetcher.PartitionRecords, "records_read"),
    (KafkaConsumer, "_cluster"),
    (KafkaConsumer, "_fetcher"),
    (KafkaConsumer, "_manager"),
    (KafkaConsumer, "_subscription"),
    (ClusterMetadata, "_last_refresh_ms"),
    (ClusterMetadata, "_last_successful_refresh_ms"),
    (ClusterMetadata, "bootstrap_brokers"),
    (ClusterMetadata, "broker_metadata"),
    (ClusterMetadata, "brokers"),
    (ClusterMetadata, "is_bootstrap"),
    (ClusterMetadata, "topic_id"),
    (KafkaConnectionManager, "_conns"),
    (KafkaConnectionManager, "_net"),
    (KafkaConnectionManager, "connection_delay"),
    (KafkaConnectionManager, "get_connection"),
    (KafkaConnectionManager, "least_loaded_node"),
    (KafkaConnectionManager, "send"),
    (SubscriptionState, "assignment"),
    (KafkaProducer, "_transaction_manager"),
    (KafkaProducer, "_sender"),
    (TransactionManager, "producer_id_and_epoch"),
    (TransactionManager, "maybe_add_partition_to_transaction"),
    (TransactionManager, "is_partition_added"),
    (TransactionManager, "has_error"),
    (TransactionManager, "last_error"),
    (Sender, "wakeup"),
    (NetworkSelector, SLEEP_EVENT),
]
ADAPTERS = [Path(module.__file__) for module in (client_internals, record_batches)]


def assigned_in_init(owner: type) -> set[str]:
    """Names of the attributes that `__init__` sets."""
    tree = ast.parse(dedent(inspect.getsource(owner.__init__)))  # type: ignore[misc]
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}


@pytest.mark.parametrize(
    ("owner", "name"), PRIVATE_PARTS, ids=[f"{owner.__name__}.{name}" for owner, name in PRIVATE_PARTS]
)
def test_the_installed_client_has_every_private_part_in_use(owner: type, name: str) -> None:
    names = ", ".join(adapter.name for adapter in ADAPTERS)
    assert hasattr(owner, name) or name in assigned_in_init(owner), (
        f"kafka-python {kafka.__version__} has no {owner.__name__}.{name}, which one of {names} uses: adapt it, "
        "or cap the version in pyproject.toml"
    )


def test_a_transaction_manager_answers_as_the_adapter_expects() -> None:
    manager = TransactionManager(transactional_id="id", transaction_timeout_ms=1_000)
    assert manager.producer_id_and_epoch.producer_id == -1
    assert not manager.is_partition_added(TopicPartition("topic", 0))
    assert not manager.has_error()


def test_closing_a_producer_flushes_it_through_its_own_attribute() -> None:
    """So that `discard_unsent` can prevent it."""
    tree = ast.parse(dedent(inspect.getsource(KafkaProducer.close)))
    assert any(isinstance(node, ast.Call) and ast.unparse(node.func) == "self.flush" for node in ast.walk(tree)), (
        f"kafka-python {kafka.__version__}: KafkaProducer.close no longer calls self.flush"
    )


def test_the_client_still_has_the_logger_of_connections() -> None:
    import kafka.net.manager

    assert kafka.net.manager.log.name == CONNECTION_LOGGER
    assert CONNECTION_LOGGER.startswith(f"{CLIENT_LOGGER}.")


@pytest.mark.parametrize("client", [KafkaConsumer, KafkaProducer, KafkaAdminClient])
def test_a_client_that_does_not_reach_the_broker_leaves_no_thread(client: Any) -> None:
    before = set(threading.enumerate())
    with pytest.raises(KafkaTimeoutError), NetClients() as net_clients:
        client(bootstrap_servers=["127.0.0.1:1"], bootstrap_timeout_ms=200, kafka_client=net_clients)
    assert set(threading.enumerate()) <= before


@pytest.fixture
def connection_log() -> Iterator[logging.Logger]:
    reset_connect_error()
    yield logging.getLogger(CONNECTION_LOGGER)
    reset_connect_error()


def test_the_cause_of_a_failed_connection_is_in_the_arguments_of_the_log_call(connection_log: logging.Logger) -> None:
    cause: Any = KafkaConnectionError("refused")
    connection_log.warning("Bootstrap connection to %s failed: %s (backoff %.2f secs)", "node", cause, 1.0)
    connection_log.error("Bootstrap failed: %s", KafkaTimeoutError("later"))
    assert last_connect_error() is cause


def test_a_rejected_login_is_not_replaced_by_a_later_error(connection_log: logging.Logger) -> None:
    cause = SaslAuthenticationFailedError("wrong password")
    connection_log.error("Connection failed: %s", cause)
    connection_log.error("Connection failed: %s", KafkaConnectionError("closed"))
    assert last_connect_error() is cause


def test_no_other_file_uses_private_parts_of_a_client() -> None:
    package = ADAPTERS[0].parents[1]
    found = [
        f"{path.relative_to(package)}:{node.lineno} {ast.unparse(node)}"
        for path in package.rglob("*.py")
        if path not in ADAPTERS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "task"))
    ]
    assert found == []
