"""Transactions that hold readers back: records after the start of an open one are read by nobody."""

import time
from collections.abc import Iterator
from typing import Final

from kafka import TopicPartition

from prectr.ops.doctor.findings import Finding
from prectr.state.errors import PrectrError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics

_NO_OPEN_TRANSACTION: Final = -1
_MAX_AGE: Final = 60.0
"""Seconds without a record after which an open transaction is conspicuous: this program ends its own before that."""


def check_open_transactions(connection: Connection, topics: Topics, partitions: int) -> Iterator[Finding]:
    """Find transactions in the topics that the stages and the trainer read which have been open for long."""
    watched = [
        TopicPartition(name, number)
        for name in (topics.events, topics.joined_pages, topics.examples)
        for number in range(partitions)
    ]
    try:
        described = connection.call_admin(lambda admin: admin.describe_producers(watched))
    except PrectrError as error:
        yield Finding("transactions", "ok", f"unknown: the broker does not describe them ({error.message})")
        return
    is_well = True
    now = time.time()
    for partition in watched:
        for producer in described[partition].active_producers:
            age = now - producer.last_timestamp / 1000
            if producer.current_transaction_start_offset == _NO_OPEN_TRANSACTION or age < _MAX_AGE:
                continue
            is_well = False
            yield Finding(
                "transactions",
                "warning",
                f"{partition.topic} partition {partition.partition}: producer id {producer.producer_id} has had a "
                f"transaction open since offset {producer.current_transaction_start_offset}, without a record for "
                f"{age:,.0f} s: nothing after that offset is read",
                "end the transaction of that producer, or abort it: kafka-transactions.sh --bootstrap-server … abort "
                f"--topic {partition.topic} --partition {partition.partition} --start-offset "
                f"{producer.current_transaction_start_offset}",
            )
    if is_well:
        yield Finding("transactions", "ok", "none is open for long")
