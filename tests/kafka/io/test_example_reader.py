"""`training-examples` is read to its committed end, however unevenly the partitions are filled."""

import time
from collections.abc import Sequence

import msgspec
import pytest

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, create_topics
from prectr.stream.kafka.io.example_reader import ExampleReader
from prectr.stream.ordering.frames import SourceProgress, encode_frames
from prectr.stream.records import Example, decode_page, encode_record
from tests.kafka.live import Live
from tests.kit.models.examples import random_examples

pytestmark = pytest.mark.usefixtures("broker")
PAGES = 22_000
FRAME = 25
"""Pages per frame: small enough that the reader pauses a partition between two frames of a fetch."""
_PATIENCE = 60


def send(connection: Connection, topic: str, partition: int, examples: Sequence[Example]) -> None:
    """Frames of an `aggregate` task whose watermark follows its examples."""
    producer = connection.producer()
    for number, start in enumerate(range(0, len(examples), FRAME)):
        records = examples[start : start + FRAME]
        (frame,) = encode_frames(
            partition, number, [encode_record(one) for one in records], SourceProgress(watermark=records[-1].closes_at)
        )
        producer.send(topic, value=frame, partition=partition)
    producer.close()


def numbered(example: Example, number: int) -> Example:
    """The example with the close time and the request id of page `number`."""
    request_id = f"r{number:05}"
    page = msgspec.structs.replace(decode_page(example.page), request_id=request_id)
    return msgspec.structs.replace(
        example,
        closes_at=example.closes_at + number,
        request_id=request_id,
        page=msgspec.Raw(encode_record(page)),
    )


def test_a_partition_that_was_left_since_it_was_ahead_is_read_on_to_its_end(live: Live) -> None:
    """Three partitions come one after the other, so that each is thousands of pages ahead of those behind it."""
    connection, topics = Connection(live.bootstrap), Topics(live.prefix)
    create_topics(connection, topics, 3)
    (one, *_), pages = random_examples(1), range(PAGES)
    examples = [numbered(one, n) for n in pages]
    parts = [examples[number::3] for number in range(3)]
    reader = ExampleReader(connection, topics)
    read: list[str] = []
    try:
        for number, part in enumerate(parts):
            send(connection, topics.examples, number, part)
            for _ in range(10):
                read += [example.request_id for example in reader.poll().examples]
        upto = min(part[-1].closes_at for part in parts)
        due = [example.request_id for example in examples if example.closes_at <= upto]
        until = time.monotonic() + _PATIENCE
        while len(read) < len(due) and time.monotonic() < until:
            read += [example.request_id for example in reader.poll().examples]
        assert read == due
        assert reader.lag() == [0, 0, 0]
    finally:
        reader.close()
