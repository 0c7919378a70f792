"""The client baseline: kafka-python reads committed records and produces the same bytes in transactions, nothing else.

`python -m bench.stream.client_baseline BOOTSTRAP PREFIX records|frames`. Two ways to send the same bytes:
- records: each event as a record of its own, from `search-events` to `training-examples`.
- frames: like the stages, the events of a transaction in frames to `joined-pages`, and from there to
  `training-examples`, without decoding.
One transaction holds the records of one poll, from all partitions, with their offsets.
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
CLIENT_MODES: Final = ("records", "frames")


class TopicCopier:
    """Copies one topic to another, keeping partitions."""

    def __init__(self, connection: Connection, source: str, target: str, *, framed: bool) -> None:
        count = partition_count(connection, source)
        self._partitions = [TopicPartition(source, number) for number in range(count)]
        self._target = target
        self._framed = framed
        self._consumer = connection.consumer(group_id=f"bare-{source}", max_poll_records=_POLL_RECORDS)
        self._consumer.assign(self._partitions)
        self._producer = connection.producer(transactional_id=f"bare-{source}", transaction_timeout_ms=60_000)
        self._producer.init_transactions()

    def copy_until_done(self, before: Event, done: Event) -> None:
        """Copy until the previous hop is done and everything is read; then set `done`."""
        try:
            while True:
                last = before.is_set()
                polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=_POLL_MS)
                if polled:
                    self._copy_records(polled)
                elif last and self._at_end():
                    return
        finally:
            done.set()
            self._producer.close(timeout=5)
            self._consumer.close()

    def _copy_records(self, polled: dict[TopicPartition, list[Any]]) -> None:
        producer, target = self._producer, self._target
        producer.begin_transaction()
        for partition, records in polled.items():
            if self._framed:
                for value in _join_into_frames([record.value for record in records]):
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


def _join_into_frames(values: Sequence[bytes]) -> Iterator[bytes]:
    """Concatenate values into the fewest chunks of at most the size of a frame."""
    group: list[bytes] = []
    size = 0
    for value in values:
        if group and size + len(value) > MAX_FRAME_BYTES:
            yield b"".join(group)
            group, size = [], 0
        group.append(value)
        size += len(value)
    yield b"".join(group)


def main(bootstrap: str, prefix: str, mode: str) -> None:
    """Copy everything that is in the topic, then exit."""
    connection, topics = Connection(bootstrap, connect_timeout=30), Topics(prefix)
    loaded, intermediate_done, done = Event(), Event(), Event()
    loaded.set()
    if mode == "records":
        TopicCopier(connection, topics.events, topics.examples, framed=False).copy_until_done(loaded, done)
        return
    first = TopicCopier(connection, topics.events, topics.joined_pages, framed=True)
    second = TopicCopier(connection, topics.joined_pages, topics.examples, framed=True)
    with ThreadPoolExecutor(2) as pool:
        for future in [
            pool.submit(first.copy_until_done, loaded, intermediate_done),
            pool.submit(second.copy_until_done, intermediate_done, done),
        ]:
            future.result()


if __name__ == "__main__":
    main(*sys.argv[1:4])
