"""What a record of `dead-letters` says: a letter of itself, a note of which letters were retried.

A letter is a record as it was (key, value), whose headers say first why and whence it came (`OURS`) and then what
the record's own headers said. Beside letters the topic holds notes, which `dlq/retry.py` writes into the
partition of the letters that it has sent: a note has one header, `retried`. It comes after the letters that it names,
so retention never removes it before them.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import PrectrError, UsageError

OURS: Final = ("reason", "detail", "topic", "partition", "offset")
NOTE: Final = "retried"
NO_REASON: Final = "no_reason"
"""The reason of a record that another program has put there, without these headers."""


class Address(NamedTuple):
    """Where a letter lies in `dead-letters`; written PARTITION:OFFSET."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


def read_address(text: str) -> Address:
    """Read PARTITION:OFFSET.

    Raises:
        UsageError: it is not written so.
    """
    partition, colon, offset = text.strip().partition(":")
    if colon and all(part.isascii() and part.isdecimal() and len(part) < 20 for part in (partition, offset)):
        return Address(int(partition), int(offset))
    raise UsageError(f"letter {text!r}: give PARTITION:OFFSET, such as 0:17, as `prectr dlq list` shows it")


class Letter(msgspec.Struct, frozen=True):
    """A record that was refused.

    time: ms since the epoch, when it was put here. topic, partition, offset: where it was read; -1 where unknown.
    headers: its own. reason, detail: one word, and what was wrong.
    """

    address: Address
    time: int
    key: bytes | None
    value: bytes
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    headers: list[tuple[str, bytes]]


class RetriedLetters(msgspec.Struct, frozen=True):
    """A part of a note: letters of its partition, by offset, that were sent again; reason and source as theirs."""

    reason: str
    topic: str
    partition: int
    offsets: list[int]


_decode_note: Final = msgspec.json.Decoder(list[RetriedLetters]).decode


def is_note(record: ConsumerRecord) -> bool:
    """Whether a record says which letters were retried."""
    return bool(record.headers) and record.headers[0][0] == NOTE


def read_note(record: ConsumerRecord) -> list[RetriedLetters]:
    """What a note says.

    Raises:
        PrectrError: it is none of this program's.
    """
    try:
        return _decode_note(record.value or b"")
    except msgspec.MsgspecError as error:
        raise PrectrError(
            f"{record.topic} {record.partition}:{record.offset} has a header `{NOTE}` and is no note of this program "
            f"({error}): another version wrote it, or another program writes to the topic"
        ) from error


def read_letter(record: ConsumerRecord) -> Letter:
    """What a letter says of itself; a record without our headers is a letter too, of reason `no_reason`."""
    headers = [(name, value or b"") for name, value in record.headers]
    said: Mapping[str, bytes] = {}
    if tuple(name for name, _ in headers[: len(OURS)]) == OURS:
        said = dict(headers[: len(OURS)])
        headers = headers[len(OURS) :]
    return Letter(
        Address(record.partition, record.offset),
        record.timestamp,
        record.key,
        record.value or b"",
        said["reason"].decode(errors="replace") if said else NO_REASON,
        said["detail"].decode(errors="replace") if said else "the record does not say why it is here",
        said["topic"].decode(errors="replace") if said else "",
        _number(said.get("partition", b"")),
        _number(said.get("offset", b"")),
        headers,
    )


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) < 20 else -1
