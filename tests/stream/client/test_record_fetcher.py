"""Polling in steps: what one round holds in memory, and what a fault in a later step leaves behind."""

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import CorruptRecordError, KafkaError

from prectr.state.errors import StateError
from prectr.stream.kafka.client.record_fetcher import STEP_RECORDS, RecordFetcher

PARTITION = TopicPartition("events", 0)


class Consumer:
    """Returns records of these sizes, a step at a time; a size of None is a record that cannot be parsed."""

    def __init__(self, sizes: list[int | None]) -> None:
        self.sizes = sizes
        self.position = 0

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        taken: list[Any] = []
        for size in self.sizes[self.position : self.position + STEP_RECORDS]:
            if size is None:
                if not taken:
                    raise CorruptRecordError("crc")
                break
            taken.append(SimpleNamespace(serialized_key_size=1, serialized_value_size=size))
        self.position += len(taken)
        return {PARTITION: taken} if taken else {}


def fetcher(consumer: Consumer) -> RecordFetcher:
    return RecordFetcher(consumer, "events", SimpleNamespace(), lambda: {0: consumer.position})  # type: ignore[arg-type]


def test_a_poll_of_small_records_returns_all_that_is_there() -> None:
    assert len(fetcher(Consumer([500] * 3_000)).poll(100)[PARTITION]) == 3_000


def test_a_poll_of_large_records_ends_with_the_step_that_exceeds_16_mib() -> None:
    consumer = Consumer([24 << 20] * 3_000)
    assert len(fetcher(consumer).poll(100)[PARTITION]) == STEP_RECORDS


def test_records_before_a_fault_are_returned_first_and_a_lasting_fault_ends_the_process() -> None:
    consumer = Consumer([500] * (STEP_RECORDS + 1) + [None])
    under_test = fetcher(consumer)
    for _ in range(2):
        consumer.position = 0
        assert len(under_test.poll(100)[PARTITION]) == STEP_RECORDS + 1
        with pytest.raises(KafkaError):
            under_test.poll(100)
    consumer.position = 0
    assert len(under_test.poll(100)[PARTITION]) == STEP_RECORDS + 1
    with pytest.raises(StateError, match="records on the broker are damaged"):
        under_test.poll(100)
