"""Records that no loader would write: other keys, tombstones, binary values, sizes over the limit of an event."""

import gzip
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from kafka.codec import has_gzip, has_lz4, has_snappy, has_zstd

from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.client import Connection

_MIB: Final = 1 << 20
_LARGE: Final = 1 / 4000
_HEADERS: Final[tuple[list[tuple[str, bytes]], ...]] = (
    [("trace", b"7")],
    [("", b"")],
    [("reason", b"blank"), ("detail", b""), ("topic", b"t"), ("partition", b"9"), ("offset", b"x")],
    [("retried", b"[]"), ("retried", b"\xff")],
    [(f"h{number}", b"v" * 100) for number in range(50)],
    [("é\x00", b"\x00\xff")],
)


class DirectRecord(NamedTuple):
    """A record as a producer sends it."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


Shape = Callable[[random.Random, bytes], tuple[bytes | None, bytes | None]]
"""Key and value of a record with a mutated line."""

SHAPES: Final[dict[str, Shape]] = {
    "no key": lambda rng, line: (None, line),
    "another user's key": lambda rng, line: (b"u%d" % rng.randrange(50), line),
    "empty key": lambda rng, line: (b"", line),
    "binary key": lambda rng, line: (rng.randbytes(16), line),
    "key of 64 KiB": lambda rng, line: (b"k" * 65_536, line) if rng.random() < 0.05 else (b"k", line),
    "tombstone": lambda rng, line: (b"u1", None),
    "empty value": lambda rng, line: (b"u1", b""),
    "framed as by a schema registry": lambda rng, line: (b"u1", b"\0" + rng.randbytes(4) + line),
    "Avro": lambda rng, line: (b"u1", b"Obj\x01" + rng.randbytes(60)),
    "gzipped value": lambda rng, line: (b"u1", gzip.compress(line, mtime=0)),
    "value with line feeds": lambda rng, line: (b"u1", line.replace(b",", b",\r\n")),
}
LARGE_SHAPES: Final[dict[str, Shape]] = {
    "value of 1 to 7 MiB": lambda rng, line: (b"u1", line + rng.randbytes(rng.randrange(_MIB, 7 * _MIB))),
    "value of 24 MiB, compressed": lambda rng, line: (b"u1", line + b"x" * (24 * _MIB)),
}


def direct_records(
    rng: random.Random, lines: Iterable[bytes], partitions: int, shapes: Counter[str], *, misplaced: bool = False
) -> Iterator[DirectRecord]:
    """Make a record of each line.

    Args:
        shapes: counts the shapes.
        misplaced: draw the partition, so that most events are not where their users' are.
    """
    for line in lines:
        choices = LARGE_SHAPES if rng.random() < _LARGE else SHAPES
        shape = rng.choice(list(choices))
        shapes[shape] += 1
        key, value = choices[shape](rng, line)
        headers = rng.choice(_HEADERS) if rng.random() < 0.3 else []
        user = decode_lines([value or b""])[0].user_id
        partition = rng.randrange(partitions) if misplaced else partitions_of([user], partitions)[0]
        yield DirectRecord(partition, key, value, headers)


class DirectProducer:
    """Sends records to a topic with every codec that is there, and in transactions that are aborted."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self._topic = topic
        available = {"gzip": has_gzip(), "snappy": has_snappy(), "lz4": has_lz4(), "zstd": has_zstd()}
        self.codecs = [name for name, found in available.items() if found]
        self._producers = [connection.producer(compression_type=name) for name in (None, *self.codecs)]
        self._aborting = connection.producer(transactional_id=f"{topic}-aborted")
        self._aborting.init_transactions()
        self.acknowledged = 0
        self.aborted = 0

    def send(self, records: Iterable[DirectRecord], rng: random.Random) -> None:
        """Send records and wait until the broker has acknowledged each."""
        futures: list[Any] = []
        for record in records:
            # Only a compressed record of this size fits the topic.
            large = record.value is not None and len(record.value) > 7 * _MIB + _MIB // 2
            producer = rng.choice(self._producers[1:] if large else self._producers)
            futures.append(self._produce(producer, record))
        for future in futures:
            future.get(120)
            self.acknowledged += 1

    def abort(self, records: Iterable[DirectRecord]) -> None:
        """Send records in a transaction that is aborted: nobody may read them."""
        self._aborting.begin_transaction()
        futures = [self._produce(self._aborting, record) for record in records]
        self._aborting.flush(120)
        self.aborted += sum(future.succeeded() for future in futures)
        self._aborting.abort_transaction()

    def close(self) -> None:
        """Close the producers."""
        for producer in (*self._producers, self._aborting):
            producer.close(30)

    def _produce(self, producer: Any, record: DirectRecord) -> Any:
        return producer.send(self._topic, record.value, record.key, record.headers, record.partition)
