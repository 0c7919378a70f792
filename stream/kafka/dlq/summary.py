"""Counts and lists dead letters, without their content."""

from collections.abc import Mapping

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.dlq.reader import DeadLetterReader
from prectr.stream.kafka.dlq.records import (
    DeadLetterRecord,
    DeadLetterRef,
    decode_dead_letter,
    decode_retry_markers,
    is_retry_marker,
)
from prectr.stream.kafka.io.topic_reader import Progress


class DeadLetterCount(msgspec.Struct):
    """Number of dead letters with one reason from one partition of a topic, and how many of them were retried."""

    reason: str
    topic: str
    partition: int
    dead_letters: int = 0
    retried: int = 0


class DeadLetterListing(msgspec.Struct):
    """A dead letter without its content; size of the value in bytes, timestamp in ms since the epoch."""

    dead_letter: str
    reason: str
    topic: str
    partition: int
    offset: int
    size: int
    timestamp: int
    retried: bool = False


class DeadLetterSummary(msgspec.Struct, frozen=True):
    """Contents of `dead-letters`: counts in descending order, and the newest first."""

    dead_letters: int
    retried: int
    counts: list[DeadLetterCount]
    newest: list[DeadLetterListing]


_Counts = dict[tuple[str, str, int], DeadLetterCount]


def summarise(
    connection: Connection, topics: Topics, progress: Progress, *, reason: str | None = None, limit: int = 10
) -> DeadLetterSummary:
    """Count the dead letters, and list the newest `limit`; with `reason`, only those that have it.

    Raises:
        PrectrError: the broker does not answer, the topic does not exist, or a retry marker cannot be decoded.
    """
    counts: _Counts = {}
    newest: dict[DeadLetterRef, DeadLetterListing] = {}
    reader = DeadLetterReader(connection, topics)
    try:
        for records in reader.read(progress=progress):
            for record in records:
                if is_retry_marker(record):
                    _count_retried(record, reader.start_offsets[record.partition], reason, counts, newest)
                    continue
                dead_letter = decode_dead_letter(record)
                if reason is None or dead_letter.reason == reason:
                    _count(counts, dead_letter.reason, dead_letter.topic, dead_letter.partition).dead_letters += 1
                    newest[dead_letter.ref] = _listing(dead_letter)
            if len(newest) > limit:
                newest = {ref: newest[ref] for ref in _newest_first(newest)[:limit]}
    finally:
        reader.close()
    ordered = sorted(
        counts.values(), key=lambda count: (-count.dead_letters, count.reason, count.topic, count.partition)
    )
    return DeadLetterSummary(
        sum(count.dead_letters for count in ordered),
        sum(count.retried for count in ordered),
        ordered,
        [newest[ref] for ref in _newest_first(newest)],
    )


def _newest_first(listings: Mapping[DeadLetterRef, DeadLetterListing]) -> list[DeadLetterRef]:
    return sorted(listings, key=lambda ref: (listings[ref].timestamp, ref), reverse=True)


def _count_retried(
    marker: ConsumerRecord,
    log_start: int,
    reason: str | None,
    counts: _Counts,
    newest: Mapping[DeadLetterRef, DeadLetterListing],
) -> None:
    for group in decode_retry_markers(marker):
        # A retry marker outlives its dead letters.
        retained = [offset for offset in group.offsets if offset >= log_start]
        if retained and (reason is None or group.reason == reason):
            _count(counts, group.reason, group.topic, group.partition).retried += len(retained)
        for offset in retained:
            if (listing := newest.get(DeadLetterRef(marker.partition, offset))) is not None:
                listing.retried = True


def _count(counts: _Counts, reason: str, topic: str, partition: int) -> DeadLetterCount:
    return counts.setdefault((reason, topic, partition), DeadLetterCount(reason, topic, partition))


def _listing(dead_letter: DeadLetterRecord) -> DeadLetterListing:
    return DeadLetterListing(
        str(dead_letter.ref),
        dead_letter.reason,
        dead_letter.topic,
        dead_letter.partition,
        dead_letter.offset,
        len(dead_letter.value),
        dead_letter.timestamp,
    )
