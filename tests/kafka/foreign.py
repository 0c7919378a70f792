"""The events of a log as another program would write them: two topics, other names, no keys; and its mapping."""

import datetime
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.consumer.fetcher import ConsumerRecord

from prectr.stream.kafka.client.client import Connection

Event = dict[str, Any]

PAGES = """
[page]
when = "payload.op == 'c'"
request_id = "payload.after.search"
user_id = "payload.after.visitor"
query = "payload.after.words"
ts = "payload.after.at"

[page.items]
each = "payload.after.hits"
item_id = "item.sku"
title = "item.name"
relevance = "item.grade"
price = "item.euros"
category = "item.shelf"
brand = "item.maker"
position = "item.place"
"""
"""Pages wrapped as Debezium does; `at` is in microseconds."""

CLICKS = """
[[click]]
request_id = "search"
user_id = "visitor"
item_id = "sku"
ts = "clicked_at"
"""
"""Clicks with times in ISO 8601."""
CLICK_SCHEMA = {
    "type": "record",
    "name": "Click",
    "fields": [{"name": name, "type": "string"} for name in ("search", "visitor", "sku", "clicked_at")],
}
_CLICK_SCHEMA = fastavro.parse_schema(CLICK_SCHEMA)

HEADERS = [("from", b"shop")]
"""Of every record."""


class Sent(NamedTuple):
    """A foreign record: where it was written, its bytes, its event or why there is none."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    event: Event | None
    reason: str | None


def page_record(page: Event) -> Event:
    """The page as the foreign program writes it."""
    hits = [
        {
            "sku": item["item_id"],
            "name": item.get("title"),
            "grade": item.get("relevance"),
            "euros": item.get("price"),
            "shelf": item.get("category"),
            "maker": item.get("brand"),
            "place": item.get("position"),
        }
        for item in page["items"]
    ]
    after = {
        "search": page["request_id"],
        "visitor": page["user_id"],
        "words": page["query"],
        "at": page["ts"] * 1000,
        "hits": hits,
    }
    return {"schema": {"type": "struct"}, "payload": {"op": "c", "after": after}}


def click_record(click: Event) -> Event:
    """The click as the foreign program writes it."""
    seconds, millis = divmod(click["ts"], 1000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return {
        "search": click["request_id"],
        "visitor": click["user_id"],
        "sku": click["item_id"],
        "clicked_at": f"{moment}.{millis:03d}Z",
    }


def create_topic(bootstrap: str, name: str, partitions: int) -> None:
    """Create a topic of the foreign program."""
    topic = NewTopic(name=name, num_partitions=partitions, replication_factor=1)
    Connection(bootstrap).call_admin(lambda admin: admin.create_topics([topic]))
    Connection(bootstrap).call_admin(lambda admin: admin.wait_for_topics([name]))


def send_round_robin(
    bootstrap: str, topic: str, partitions: int, values: Iterable[tuple[bytes | None, Event | None, str | None]]
) -> list[Sent]:
    """Write values without keys to the partitions in turn."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20)
    try:
        sent = []
        for number, (value, event, reason) in enumerate(values):
            # A record without a value must have a key.
            key = b"deleted" if value is None else None
            sent.append((producer.send(topic, value, key, HEADERS, number % partitions), value, event, reason))
        producer.flush()
        placed = [(future.get(10), *rest) for future, *rest in sent]
        return [Sent(topic, where.partition, where.offset, *rest) for where, *rest in placed]
    finally:
        producer.close()


def committed_records(bootstrap: str, topic: str, partitions: int) -> list[list[ConsumerRecord]]:
    """Return the committed records of each partition."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    try:
        where = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(where)
        ends = consumer.end_offsets(where)
        found: list[list[ConsumerRecord]] = [[] for _ in where]
        while any(consumer.position(each) < ends[each] for each in where):
            for each, records in consumer.poll(timeout_ms=500).items():
                found[each.partition] += records
        return found
    finally:
        consumer.close()


def write_mappings(folder: Path) -> tuple[Path, Path]:
    """Write the mappings of pages and clicks."""
    for name, text in (("pages.toml", PAGES), ("clicks.toml", CLICKS)):
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "pages.toml", folder / "clicks.toml"


def as_json(record: Event) -> bytes:
    """Encode a record as JSON."""
    return json.dumps(record).encode()


def as_avro(record: Event) -> bytes:
    """Encode a click as Avro behind the id of its schema, 7."""
    out = io.BytesIO(b"\x00\x00\x00\x00\x07")
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, _CLICK_SCHEMA, record)
    return out.getvalue()


def write_click_schema(folder: Path) -> Path:
    """Write the schema of clicks in Avro."""
    path = folder / "click.avsc"
    path.write_text(json.dumps(CLICK_SCHEMA))
    return path


def mixed(
    values: Sequence[tuple[bytes, Event]], damaged: Sequence[tuple[bytes | None, str]], every: int
) -> Iterator[tuple[bytes | None, Event | None, str | None]]:
    """Yield values with their events, and after so many a damaged one with the reason of its dead letter."""
    for number, (value, event) in enumerate(values):
        yield value, event, None
        if number % every == every // 2:
            yield (damaged[number // every % len(damaged)][0], None, damaged[number // every % len(damaged)][1])
