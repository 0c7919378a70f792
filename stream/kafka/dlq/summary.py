"""Counts what lies in `dead-letters`; shows nothing of what the letters hold."""

from collections.abc import Mapping

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.dlq.reader import LetterReader, Progress
from prectr.stream.kafka.dlq.records import Address, Letter, is_note, read_letter, read_note


class LetterCount(msgspec.Struct):
    """Letters of one reason from one partition of a topic; retried: how many of them were sent again."""

    reason: str
    topic: str
    partition: int
    letters: int = 0
    retried: int = 0


class LetterLine(msgspec.Struct):
    """A letter in a list: nothing of what it holds. size: bytes of the value; time: ms since the epoch."""

    letter: str
    reason: str
    topic: str
    partition: int
    offset: int
    size: int
    time: int
    retried: bool = False


class Summary(msgspec.Struct, frozen=True):
    """What lies in `dead-letters`. counts: most letters first; newest: newest first."""

    letters: int
    retried: int
    counts: list[LetterCount]
    newest: list[LetterLine]


_Counts = dict[tuple[str, str, int], LetterCount]


def summarise(
    connection: Connection, topics: Topics, progress: Progress, *, reason: str | None = None, limit: int = 10
) -> Summary:
    """Count the letters, and list the newest `limit`. reason: only those of it.

    Raises:
        PrectrError: no broker or no topic, or it holds notes that cannot be read.
    """
    counts: _Counts = {}
    newest: dict[Address, LetterLine] = {}
    reader = LetterReader(connection, topics)
    try:
        for records in reader.read(progress=progress):
            for record in records:
                if is_note(record):
                    _count_retried(record, reader.firsts[record.partition], reason, counts, newest)
                    continue
                letter = read_letter(record)
                if reason is None or letter.reason == reason:
                    _count(counts, letter.reason, letter.topic, letter.partition).letters += 1
                    newest[letter.address] = _line(letter)
            if len(newest) > limit:
                newest = {address: newest[address] for address in _newest_first(newest)[:limit]}
    finally:
        reader.close()
    ordered = sorted(counts.values(), key=lambda count: (-count.letters, count.reason, count.topic, count.partition))
    return Summary(
        sum(count.letters for count in ordered),
        sum(count.retried for count in ordered),
        ordered,
        [newest[address] for address in _newest_first(newest)],
    )


def _newest_first(lines: Mapping[Address, LetterLine]) -> list[Address]:
    return sorted(lines, key=lambda address: (lines[address].time, address), reverse=True)


def _count_retried(
    note: ConsumerRecord, first: int, reason: str | None, counts: _Counts, newest: Mapping[Address, LetterLine]
) -> None:
    for group in read_note(note):
        # A note outlives its letters.
        held = [offset for offset in group.offsets if offset >= first]
        if held and (reason is None or group.reason == reason):
            _count(counts, group.reason, group.topic, group.partition).retried += len(held)
        for offset in held:
            if (line := newest.get(Address(note.partition, offset))) is not None:
                line.retried = True


def _count(counts: _Counts, reason: str, topic: str, partition: int) -> LetterCount:
    return counts.setdefault((reason, topic, partition), LetterCount(reason, topic, partition))


def _line(letter: Letter) -> LetterLine:
    return LetterLine(
        str(letter.address),
        letter.reason,
        letter.topic,
        letter.partition,
        letter.offset,
        len(letter.value),
        letter.time,
    )
