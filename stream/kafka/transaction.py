"""One task's transactions: outputs, dead letters and the offset of the next unread record, all or nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from state.errors import StateError

_NO_EPOCH: Final = -1


class Committed(msgspec.Struct, array_like=True):
    """What a commit says besides the offset, as its metadata.

    emitted: records put out since the beginning. sequences: of the next frame to each output partition.
    ended: the task has put out everything and told so.
    """

    emitted: int = 0
    sequences: list[int] = []
    ended: bool = False


@dataclass(slots=True)
class Outbox:
    """What a transaction is to send: (topic, partition or None, key, value, headers)."""

    messages: list[tuple[str, int | None, bytes | None, bytes, list[tuple[str, bytes]]]] = field(default_factory=list)

    def add(
        self,
        topic: str,
        partition: int | None,
        value: bytes,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Put a message in; without a partition, the key decides."""
        self.messages.append((topic, partition, key, value, list(headers)))


class Transactions:
    """The transactional producer of one task; whoever has lost the task is fenced.

    Made when the task is assigned, which ends a dead owner's open transaction; only then is `committed` read.
    """

    def __init__(self, producer: KafkaProducer, consumer: KafkaConsumer, partition: TopicPartition) -> None:
        self._producer = producer
        self._consumer = consumer
        self._partition = partition
        producer.init_transactions()

    def committed(self) -> tuple[int | None, Committed]:
        """Offset of the next unread record and what was said with it; None where nothing was ever committed."""
        found = self._consumer.committed(self._partition, metadata=True)
        if found is None or found.offset < 0:
            return None, Committed()
        try:
            return found.offset, msgspec.json.decode(found.metadata, type=Committed)
        except msgspec.MsgspecError as error:
            raise StateError(
                f"the group's commit for {self._partition.topic} partition {self._partition.partition} was not made "
                f"by this program (metadata {found.metadata!r}): use another --group-prefix"
            ) from error

    def commit(self, outbox: Outbox, offset: int, said: Committed, group: Any) -> None:
        """Send everything and commit. group: the group's metadata as of when the records were polled."""
        producer = self._producer
        producer.begin_transaction()
        try:
            sent = [
                producer.send(topic, value=value, key=key, partition=partition, headers=headers)
                for topic, partition, key, value, headers in outbox.messages
            ]
            metadata = msgspec.json.encode(said).decode()
            producer.send_offsets_to_transaction(
                {self._partition: OffsetAndMetadata(offset, metadata, _NO_EPOCH)}, group
            )
            for future in sent:
                future.get(timeout=60)
        except BaseException:
            producer.abort_transaction()
            raise
        producer.commit_transaction()

    def close(self) -> None:
        """Let the producer go."""
        self._producer.close()
