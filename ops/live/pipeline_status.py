"""The progress of a live system, from the broker's offsets and the trainer's report; read-only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.transactions.committed_offsets import decode_commit

REPORT_FILE: Final = "report.json"


class ReportedQuality(msgspec.Struct, frozen=True):
    """The prequential quality of a model so far; None while undefined."""

    model: str
    auc: float | None = None
    gauc: float | None = None


class TrainerReport(msgspec.Struct, frozen=True):
    """The last report of the trainer: pages trained on, and the quality of its models."""

    pages: int = 0
    models: list[ReportedQuality] = []


class PipelineStatus(msgspec.Struct, frozen=True):
    """The progress of the stages, from the broker.

    events: number of records of search-events since its start. lag: by partition, records that `join` has not committed
    yet. joined_pages: closed pages, with final labels. examples: pages with aggregates, ready for training.
    """

    events: int
    lag: list[int]
    joined_pages: int
    examples: int


class PipelineStatusReader:
    """Reads the progress of the stages from the broker, without joining their groups."""

    def __init__(self, connection: Connection, topics: Topics, group_prefix: str, partitions: int) -> None:
        self._connection = connection
        self._events = [TopicPartition(topics.events, number) for number in range(partitions)]
        self._joined_pages = [TopicPartition(topics.joined_pages, number) for number in range(partitions)]
        self._join_group, self._aggregate_group = f"{group_prefix}join", f"{group_prefix}aggregate"
        self._consumer: KafkaConsumer = connection.consumer(group_id=None)

    def read(self) -> PipelineStatus:
        """Read the progress now.

        Raises:
            PrectrError: the broker does not respond, or a group was used by another program.
        """
        with self._connection.translate_errors():
            ends = self._consumer.end_offsets(self._events)
            first = self._consumer.beginning_offsets(self._events)
        committed: Mapping[str, Mapping[TopicPartition, OffsetAndMetadata]] = self._connection.call_admin(
            lambda admin: admin.list_group_offsets([self._join_group, self._aggregate_group])
        )
        join_offsets = [decode_commit(committed[self._join_group].get(each), each) for each in self._events]
        aggregate_offsets = [
            decode_commit(committed[self._aggregate_group].get(each), each) for each in self._joined_pages
        ]
        return PipelineStatus(
            events=sum(ends.values()),
            lag=[
                ends[each] - (offset[0] if offset else first[each])
                for each, offset in zip(self._events, join_offsets, strict=True)
            ],
            joined_pages=sum(commit[1].emitted for commit in join_offsets if commit),
            examples=sum(commit[1].emitted for commit in aggregate_offsets if commit),
        )

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


def read_trainer_report(run_dir: Path) -> TrainerReport | None:
    """Read the last report of the trainer; None before the first."""
    try:
        return msgspec.json.decode((run_dir / REPORT_FILE).read_bytes(), type=TrainerReport)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
