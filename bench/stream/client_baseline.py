"""The bare loop: kafka-python reads what is committed and produces the same bytes in transactions, without any work.

`python -m bench.stream.client_baseline BOOTSTRAP PREFIX records|frames`. Two ways to send the same bytes:
- records: each event is produced again as a record of its own, from `search-events` to `training-examples`.
- frames: as the stages do it: the events of a transaction in frames, to `search-activity`, and from there again to
  `training-examples`; nothing is decoded.
One transaction holds what one poll gave, from all partitions together, with the offsets read.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, Final

from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, partition_count
from prectr.stream.ordering.frames import MAX_FRAME_BYTES

_POLL_RECORDS: Final = 8_192
_POLL_MS: Final = 200
_NO_EPOCH: Final = -1
WAYS: Final = ("records", "frames")


class Hop:
    """From one topic to another, partition by partition."""

    def __init__(self, connection: Connection, source: str, target: str, *, framed: bool) -> None:
        count = partition_count(connection, source)
        self._partitions = [TopicPartition(source, number) for number in range(count)]
        self._target = target
        self._framed = framed
        self._consumer = connection.consumer(group_id=f"bare-{source}", max_poll_records=_POLL_RECORDS)
        self._consumer.assign(self._partitions)
        self._producer = connection.producer(transactional_id=f"bare-{source}", transaction_timeout_ms=60_000)
        self._producer.init_transactions()

    def run(self, before: Event, done: Event) -> None:
        """Go on until the hop before this one is done and everything is read; then set `done`."""
        try:
            while True:
                last = before.is_set()
                polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=_POLL_MS)
                if polled:
                    self._pass_on(polled)
                elif last and self._at_end():
                    return
        finally:
            done.set()
            self._producer.close(timeout=5)
            self._consumer.close()

    def _pass_on(self, polled: dict[TopicPartition, list[Any]]) -> None:
        producer, target = self._producer, self._target
        producer.begin_transaction()
        for partition, records in polled.items():
            if self._framed:
                for value in _joined([record.value for record in records]):
                    producer.send(target, value=value, partition=partition.partition)
            else:
                for record in records:
                    producer.send(target, value=record.value, key=record.key, partition=partition.partition)
        producer.flush()
        offsets = {
            partition: OffsetAndMetadata(records[-1].offset + 1, "", _NO_EPOCH) for partition, records in polled.items()
        }
        producer.send_offsets_to_transaction(offsets, self._consumer.group_metadata())
        producer.commit_transaction()

    def _at_end(self) -> bool:
        ends = self._consumer.end_offsets(self._partitions)
        return all(self._consumer.position(partition) >= ends[partition] for partition in self._partitions)


def _joined(values: Sequence[bytes]) -> Iterator[bytes]:
    """The same bytes in as few pieces of at most a frame's size as may be."""
    group: list[bytes] = []
    size = 0
    for value in values:
        if group and size + len(value) > MAX_FRAME_BYTES:
            yield b"".join(group)
            group, size = [], 0
        group.append(value)
        size += len(value)
    yield b"".join(group)


def main(bootstrap: str, prefix: str, way: str) -> None:
    """Pass on everything that is there, and end."""
    connection, topics = Connection(bootstrap, wait=30), Topics(prefix)
    loaded, between, done = Event(), Event(), Event()
    loaded.set()
    if way == "records":
        Hop(connection, topics.events, topics.examples, framed=False).run(loaded, done)
        return
    first = Hop(connection, topics.events, topics.activity, framed=True)
    second = Hop(connection, topics.activity, topics.examples, framed=True)
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(first.run, loaded, between), pool.submit(second.run, between, done)]:
            future.result()


if __name__ == "__main__":
    main(*sys.argv[1:4])
