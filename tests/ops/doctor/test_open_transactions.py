"""Transactions of other programs that hold readers back are found by `doctor`."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from prectr.ops.doctor.broker.open_transactions import check_open_transactions
from prectr.state.errors import PrectrError
from prectr.stream.kafka.client.topics import Topics

EVENTS = TopicPartition("search-events", 1)


class Described:
    """A connection to a broker that describes these producers: (partition, id, start of the transaction, seconds)."""

    def __init__(self, *producers: tuple[TopicPartition, int, int, float], error: Exception | None = None) -> None:
        self._producers = producers
        self._error = error

    def call_admin(self, request: Any) -> Any:
        return request(self)

    def describe_producers(self, partitions: list[TopicPartition]) -> dict[TopicPartition, Any]:
        if self._error is not None:
            raise self._error
        found: dict[TopicPartition, list[Any]] = {partition: [] for partition in partitions}
        for partition, number, start, age in self._producers:
            found[partition].append(
                SimpleNamespace(
                    producer_id=number,
                    current_transaction_start_offset=start,
                    last_timestamp=(time.time() - age) * 1000,
                )
            )
        return {partition: SimpleNamespace(active_producers=each) for partition, each in found.items()}


def findings(connection: Described) -> list[tuple[str, str]]:
    found = check_open_transactions(connection, Topics(), 2)  # type: ignore[arg-type]
    return [(finding.severity, f"{finding.observed} {finding.advice}") for finding in found]


def test_a_transaction_that_nobody_ends_is_named_with_its_place_and_the_way_out() -> None:
    ((severity, text),) = findings(Described((EVENTS, 77, 120, 300.0)))
    assert severity == "warning"
    for words in ("search-events partition 1", "producer id 77", "offset 120", "kafka-transactions.sh", "abort"):
        assert words in text


@pytest.mark.parametrize("producer", [(EVENTS, 7, -1, 900.0), (EVENTS, 7, 5, 2.0)])
def test_ended_and_recent_transactions_are_well(producer: tuple[TopicPartition, int, int, float]) -> None:
    assert findings(Described(producer)) == [("ok", "none is open for long ")]


def test_a_broker_that_does_not_describe_producers_is_no_error() -> None:
    ((severity, text),) = findings(Described(error=PrectrError("not authorised")))
    assert (severity, text.split(":")[0]) == ("ok", "unknown")
