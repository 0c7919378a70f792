"""A consumer group's committed offsets, with the task state in their metadata."""

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Final

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from prectr.state.encoding import DAMAGE
from prectr.state.errors import Remedy, StateError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.transactions.admin import TransactionAdmin

NO_LEADER_EPOCH: Final = -1
_REQUEST_TIMEOUT: Final = 20.0
_CLOSE_TIMEOUT_MS: Final = 5_000


class CommitMetadata(msgspec.Struct, array_like=True):
    """State of a task that is committed together with its offset, as the offset's metadata.

    Attributes:
        topic_id: id of the input topic.
        start_offset: offset of the first record that the group ever read.
        emitted: records emitted since then.
        sequences: by output partition, sequence number of the next frame.
        reached_end_offsets: by source, the requested end offset that the task has reached and reported; -1 before.
        read_time: event time up to which an `ingest` task has read its input (ms); None before its first event.
        settings: digest of the settings that decide the task's output; empty: not known.
        leader_epoch: of the record before the offset; -1: not known. If that record has another epoch later, the log
            was truncated and written anew.
    """

    topic_id: str
    start_offset: int = 0
    emitted: int = 0
    sequences: list[int] = []
    reached_end_offsets: list[int] = []
    read_time: int | None = None
    settings: str = ""
    leader_epoch: int = NO_LEADER_EPOCH


# Tasks are opened in parallel, and msgspec 0.22 crashes if two threads are the first to decode a type.
_decode_metadata: Final = msgspec.json.Decoder(CommitMetadata).decode


def decode_commit(
    found: OffsetAndMetadata | None,
    topic_partition: TopicPartition,
    remedies: Sequence[Remedy] = (Remedy.OTHER_GROUP_PREFIX,),
) -> tuple[int, CommitMetadata] | None:
    """Return the offset of the next unread record and its metadata; None if nothing was ever committed.

    Args:
        remedies: for a commit of another program.

    Raises:
        StateError: another program made the commit.
    """
    if found is None or found.offset < 0:
        return None
    try:
        return found.offset, _decode_metadata(found.metadata)
    except DAMAGE as error:
        raise StateError(
            f"the group's commit for {topic_partition.topic} partition {topic_partition.partition} was not made "
            f"by this program (metadata {found.metadata!r})",
            *remedies,
        ) from error


class CommittedOffsets:
    """Reads what a group has committed for a topic, after pending transactions have ended; thread-safe.

    Args:
        remedies: for a commit of another program.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        topic: str,
        remedies: Sequence[Remedy] = (Remedy.OTHER_GROUP_PREFIX,),
    ) -> None:
        self.group = group
        self._remedies = remedies
        self.transaction_admin = TransactionAdmin(connection)
        self._topic = topic
        self._lock = Lock()
        # With read_committed, the client requests stable offsets only.
        self._consumer = connection.consumer(group_id=group)

    def topic_partition(self, number: int) -> TopicPartition:
        """Return a partition of the topic."""
        return TopicPartition(self._topic, number)

    def is_stable(self, number: int, timeout: float) -> bool:
        """Return whether no pending transaction holds back a partition's offset, waiting at most `timeout` seconds."""
        with self._lock:
            try:
                self._consumer.committed(self.topic_partition(number), metadata=True, timeout_ms=round(timeout * 1000))
            except KafkaTimeoutError:
                return False
        return True

    def markers_complete(
        self, number: int, producer_id: int, partitions: Iterable[TopicPartition], timeout: float
    ) -> bool:
        """Return whether the markers of a producer's last transaction reached the offset and the output partitions.

        Args:
            number: partition of the offset.
            partitions: the output partitions.
            timeout: seconds to wait for each of the two.

        Raises:
            KafkaError: the broker does not answer.
        """
        return self.is_stable(number, timeout) and self.transaction_admin.wait_until_ended(
            producer_id, partitions, timeout
        )

    def fetch(self, number: int, timeout: float = _REQUEST_TIMEOUT) -> tuple[int, CommitMetadata] | None:
        """Return the offset of a partition's next unread record and its metadata; None if there is no commit.

        Args:
            timeout: seconds to wait for a pending transaction.

        Raises:
            StateError: another program made the commit.
            KafkaError: the broker does not answer.
        """
        topic_partition = self.topic_partition(number)
        with self._lock:
            found = self._consumer.committed(topic_partition, metadata=True, timeout_ms=round(timeout * 1000))
        return decode_commit(found, topic_partition, self._remedies)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close(timeout_ms=_CLOSE_TIMEOUT_MS)
        self.transaction_admin.close()
