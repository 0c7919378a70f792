"""What a record of `dead-letters` says: a letter of itself, a note of which letters were retried.

A letter is a record as it was (key, value), whose headers say first why and whence it came (`ERROR_HEADERS`) and then what
the record's own headers said. Beside letters the topic holds notes, which `dlq/retry.py` writes into the
partition of the letters that it has sent: a note has one header, `retried`. It comes after the letters that it names,
so retention never removes it before them.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import PrectrError, UsageError

ERROR_HEADERS: Final = ("reason", "detail", "topic", "partition", "offset")
RETRY_MARKER_HEADER: Final = "retried"
NO_REASON: Final = "no_reason"
"""The reason of a record that another program has put there, without these headers."""


class DeadLetterRef(NamedTuple):
    """Where a letter lies in `dead-letters`; written PARTITION:OFFSET."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


def parse_ref(text: str) -> DeadLetterRef:
    """Read PARTITION:OFFSET.

    Raises:
        UsageError: it is not written so.
    """
    partition, colon, offset = text.strip().partition(":")
    if colon and all(part.isascii() and part.isdecimal() and len(part) < 20 for part in (partition, offset)):
        return DeadLetterRef(int(partition), int(offset))
    raise UsageError(f"letter {text!r}: give PARTITION:OFFSET, such as 0:17, as `prectr dlq list` shows it")


class DeadLetterRecord(msgspec.Struct, frozen=True):
    """A record that was refused.

    time: ms since the epoch, when it was put here. topic, partition, offset: where it was read; -1 where unknown.
    headers: its own. reason, detail: one word, and what was wrong.
    """

    ref: DeadLetterRef
    timestamp: int
    key: bytes | None
    value: bytes
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    headers: list[tuple[str, bytes]]


class RetryMarkers(msgspec.Struct, frozen=True):
    """A part of a note: letters of its partition, by offset, that were sent again; reason and source as theirs."""

    reason: str
    topic: str
    partition: int
    offsets: list[int]


_decode_markers: Final = msgspec.json.Decoder(list[RetryMarkers]).decode


def is_retry_marker(record: ConsumerRecord) -> bool:
    """Whether a record says which letters were retried."""
    return bool(record.headers) and record.headers[0][0] == RETRY_MARKER_HEADER


def decode_retry_markers(record: ConsumerRecord) -> list[RetryMarkers]:
    """What a note says.

    Raises:
        PrectrError: it is none of this program's.
    """
    try:
        return _decode_markers(record.value or b"")
    except msgspec.MsgspecError as error:
        raise PrectrError(
            f"{record.topic} {record.partition}:{record.offset} has a header `{RETRY_MARKER_HEADER}` and is no note of this program "
            f"({error}): another version wrote it, or another program writes to the topic"
        ) from error


def decode_dead_letter(record: ConsumerRecord) -> DeadLetterRecord:
    """What a letter says of itself; a record without our headers is a letter too, of reason `no_reason`."""
    headers = [(name, value or b"") for name, value in record.headers]
    error_headers: Mapping[str, bytes] = {}
    if tuple(name for name, _ in headers[: len(ERROR_HEADERS)]) == ERROR_HEADERS:
        error_headers = dict(headers[: len(ERROR_HEADERS)])
        headers = headers[len(ERROR_HEADERS) :]
    return DeadLetterRecord(
        DeadLetterRef(record.partition, record.offset),
        record.timestamp,
        record.key,
        record.value or b"",
        error_headers["reason"].decode(errors="replace") if error_headers else NO_REASON,
        error_headers["detail"].decode(errors="replace") if error_headers else "the record does not say why it is here",
        error_headers["topic"].decode(errors="replace") if error_headers else "",
        _parse_number(error_headers.get("partition", b"")),
        _parse_number(error_headers.get("offset", b"")),
        headers,
    )


def _parse_number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) < 20 else -1
