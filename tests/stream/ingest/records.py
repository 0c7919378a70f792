"""Foreign records made by hand, and their mapping."""

import json
from pathlib import Path
from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from prectr.stream.convert.mapping import load_mapping
from prectr.stream.kafka.ingest.record_mapper import KeyedEvent, MappedRecord, RecordMapper
from prectr.stream.kafka.ingest.value_decoder import decode_json
from tests.kit.kafka.log import record_of

T = 1_740_823_200_000
"""2025-03-01T10:00:00Z."""


def foreign(offset: int, value: Any, *, topic: str = "shop", partition: int = 0) -> ConsumerRecord:
    """A record; a value that is not bytes is written as JSON."""
    content = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return record_of(TopicPartition(topic, partition), offset, content)


def mapped_at(offset: int, time: int | None) -> MappedRecord:
    """A mapped record with one click at a time, or without events."""
    events = [] if time is None else [KeyedEvent("u", b"{}", time, is_click=True)]
    return MappedRecord(foreign(offset, b"{}"), events, None, {})


def mapper(folder: Path, mapping: str) -> RecordMapper:
    """A mapper of JSON by a mapping given as text."""
    path = folder / "mapping.toml"
    path.write_text(mapping, encoding="utf-8")
    return RecordMapper(load_mapping(path), folder, decode_json)
