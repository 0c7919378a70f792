"""Everything that a task is given from outside: its partition and clients, the time to punctuate, the end to reach."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from kafka import TopicPartition

from prectr.state.identity import StoreIdentity
from prectr.state.snapshots.snapshotter import SNAPSHOT_INTERVAL
from prectr.state.snapshots.storage import SnapshotStorage
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import ResultPage
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import EndOffsets, EndOffsetsSample
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.transactions.committed_offsets import CommittedOffsets
from prectr.stream.ordering.frames import END_OF_LOG

_DIGEST_DIGITS: Final = 16


class SnapshotSettings(msgspec.Struct, frozen=True):
    """Location of the state's snapshots, and seconds between two of them."""

    storage: SnapshotStorage
    interval: float = SNAPSHOT_INTERVAL


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """Everything that is needed to open a task.

    Attributes:
        group: consumer group of the stage.
        partition: of the input topic.
        cluster: id of the Kafka cluster.
        topic_id: id of the input topic.
        label: fills in missing relevance levels of a page.
        idle_timeout: seconds without input after which other partitions no longer wait for this one's pending pages.
    """

    connection: Connection
    topics: Topics
    group: str
    partition: int
    config: PipelineConfig
    state_dir: Path
    cluster: str
    topic_id: str
    snapshots: SnapshotSettings | None
    end_offsets: EndOffsets
    committed_offsets: CommittedOffsets
    label: Callable[[str, ResultPage], None]
    idle_timeout: float

    @property
    def settings_digest(self) -> str:
        """Digest of the settings that decide the task's output, which every process of a system must share."""
        return settings_digest(self.config)

    def identity(self, stage: str, source: TopicPartition) -> StoreIdentity:
        """Return the identity of the store of this partition's task."""
        # As a stored identity is read: a tuple is a list there.
        config = msgspec.json.decode(msgspec.json.encode(self.config))
        return StoreIdentity(self.cluster, source.topic, self.topic_id, stage, self.partition, config)


def settings_digest(config: PipelineConfig) -> str:
    """Return the digest of the stages' settings by which a commit tells them."""
    return hashlib.sha256(msgspec.json.encode(config, order="sorted")).hexdigest()[:_DIGEST_DIGITS]


class PunctuationContext(NamedTuple):
    """State of the group and the log at a punctuation.

    Attributes:
        group_metadata: metadata of the consumer group, for the commit.
        sample: end offsets of all partitions; None if they were not sampled in this round.
        consumer_position: offset of the next record, past transaction markers; -1 if unknown.
    """

    group_metadata: Any
    sample: EndOffsetsSample | None
    consumer_position: int


class EndOfInput(NamedTuple):
    """The end of the log up to which the group was requested to process.

    Attributes:
        offsets: end offset of each partition of the events.
        flush: the log has ended for good: every pending page is closed, and no event may follow.
    """

    offsets: Sequence[int]
    flush: bool

    def target(self, partition: int) -> int:
        """Return the end offset that the partition's `join` task reports once it is reached."""
        return END_OF_LOG if self.flush else self.offsets[partition]
