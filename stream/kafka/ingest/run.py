"""One process that ingests foreign topics, until it is stopped."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kafka import TopicPartition

from prectr.state.errors import UsageError
from prectr.stream.convert.mapping import load_mapping
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import EndOffsets
from prectr.stream.kafka.client.topics import Topics, partition_count
from prectr.stream.kafka.ingest.alignment import Alignment
from prectr.stream.kafka.ingest.ingest_manager import IngestManager
from prectr.stream.kafka.ingest.ingest_task import IngestStatus
from prectr.stream.kafka.ingest.position_sampler import PositionSampler
from prectr.stream.kafka.ingest.record_mapper import RecordMapper
from prectr.stream.kafka.ingest.schema_registry import SchemaRegistry
from prectr.stream.kafka.ingest.value_decoder import ValueFormat, value_decoder
from prectr.stream.kafka.tasks.task_context import EndOfInput
from prectr.stream.kafka.tasks.task_manager import TaskSource
from prectr.stream.kafka.tasks.worker import run_managers

_STALL_TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignTopic:
    """A topic to ingest.

    Attributes:
        mapping: file as for `prectr convert`.
        schema: file with an Avro schema; None if it is in the registry, or not needed.
    """

    name: str
    mapping: Path
    value_format: ValueFormat = "json"
    schema: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """Settings of a process.

    Attributes:
        max_ahead: seconds of event time by which an input may be ahead of those that have unread records.
        session_timeout: seconds after which the group reassigns a dead process's tasks.
    """

    connection: Connection
    topics: Topics
    group_prefix: str
    inputs: Sequence[ForeignTopic]
    max_ahead: float
    registry: SchemaRegistry | None = None
    session_timeout: float = 10.0


def run_ingest(
    settings: IngestSettings,
    *,
    until_end: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Sequence[IngestStatus]], None] = lambda status: None,
) -> None:
    """Ingest until `stop` returns true or, with `until_end`, until the group has processed what the topics hold now.

    Args:
        until_end: end once all processes together have processed it.
        progress: called with the status of each task of this process, also at the end.

    Raises:
        UsageError: a topic is one of the system's, is named twice, or its values need a schema.
        ConfigError: a mapping or a schema is wrong.
        PrectrError: the broker rejects a request, the schema registry does not answer, or a topic or group does not
            fit.
    """
    connection, topics = settings.connection, settings.topics
    _check_names(settings)
    mappers = {each.name: _mapper(each, settings.registry) for each in settings.inputs}
    for name in (topics.events, topics.dead_letters):
        partition_count(connection, name)
    sources = [
        TaskSource(f"ingest-{name}", name, partition_count(connection, name), f"{settings.group_prefix}ingest-{name}")
        for name in mappers
    ]
    with ExitStack() as stack:
        stack.enter_context(connection.translate_errors())
        end_offsets = EndOffsets(connection)
        stack.callback(end_offsets.close)
        sampler = PositionSampler(
            connection,
            {source.topic: source.group for source in sources},
            [TopicPartition(source.topic, number) for source in sources for number in range(source.partitions)],
            Alignment(settings.max_ahead, _STALL_TIMEOUT),
        )
        stack.callback(sampler.close)
        managers: list[tuple[IngestManager, EndOfInput | None]] = []
        for source in sources:
            end = EndOfInput(end_offsets.fetch_topic(source.topic), flush=False) if until_end else None
            mapper = mappers[source.topic]
            manager = IngestManager(connection, topics, source, mapper, sampler, end_offsets, settings.session_timeout)
            stack.callback(manager.close)
            managers.append((manager, end))

        def report() -> None:
            progress([status for manager, _ in managers for status in manager.statuses()])

        run_managers(managers, stop, report)
        report()


def _check_names(settings: IngestSettings) -> None:
    names = [each.name for each in settings.inputs]
    for name in names:
        if name in settings.topics.all:
            raise UsageError(f"topic {name} is one of this system's own: it cannot be ingested")
        if names.count(name) > 1:
            raise UsageError(f"topic {name} is named twice")


def _mapper(topic: ForeignTopic, registry: SchemaRegistry | None) -> RecordMapper:
    mapping = load_mapping(topic.mapping)
    return RecordMapper(mapping, topic.mapping.parent, value_decoder(topic.value_format, topic.schema, registry))
