"""Records of the topic `dead-letters`: dead letters, and markers of those that were retried.

A dead letter is a rejected record with its key and value; its headers are the reason and source (`ERROR_HEADERS`),
followed by the record's own headers. A retry marker has one header, `retried`; `dlq/retry.py` writes it into the
partition of the dead letters that it has sent. It follows the dead letters that it names, so retention never removes
it before them.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.encoding import DAMAGE
from prectr.state.errors import PrectrError, Remedy, UsageError

ERROR_HEADERS: Final = ("reason", "detail", "topic", "partition", "offset")
RETRY_MARKER_HEADER: Final = "retried"
NO_REASON: Final = "no_reason"
"""Reason of a record without these headers, which another program wrote."""


class DeadLetterRef(NamedTuple):
    """Partition and offset of a dead letter in `dead-letters`; written PARTITION:OFFSET."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


def parse_ref(text: str) -> DeadLetterRef:
    """Parse PARTITION:OFFSET.

    Raises:
        UsageError: the text has another form.
    """
    partition, colon, offset = text.strip().partition(":")
    if colon and all(part.isascii() and part.isdecimal() and len(part) < 20 for part in (partition, offset)):
        return DeadLetterRef(int(partition), int(offset))
    raise UsageError(
        f"dead letter {text!r} is not of the form PARTITION:OFFSET, such as 0:17", Remedy.LIST_DEAD_LETTERS
    )


class DeadLetterRecord(msgspec.Struct, frozen=True):
    """A rejected record.

    Attributes:
        ref: its position in `dead-letters`.
        timestamp: when it was written there (ms since the epoch).
        reason: short code, such as missing_field.
        detail: description of the error.
        topic: of the original record; empty if unknown.
        partition: of the original record; -1 if unknown.
        offset: of the original record; -1 if unknown.
        headers: of the original record.
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
    """Part of a retry marker: offsets of retried dead letters in its partition, which share reason and source."""

    reason: str
    topic: str
    partition: int
    offsets: list[int]


_decode_markers: Final = msgspec.json.Decoder(list[RetryMarkers]).decode


def rejection_headers(reason: str, detail: str, source: TopicPartition, offset: int) -> list[tuple[str, bytes]]:
    """Return `ERROR_HEADERS` with their values for a rejected record."""
    values = (reason, detail, source.topic, str(source.partition), str(offset))
    return [(name, value.encode(errors="replace")) for name, value in zip(ERROR_HEADERS, values, strict=True)]


def is_retry_marker(record: ConsumerRecord) -> bool:
    """Return whether a record is a retry marker."""
    return bool(record.headers) and record.headers[0][0] == RETRY_MARKER_HEADER


def decode_retry_markers(record: ConsumerRecord) -> list[RetryMarkers]:
    """Decode a retry marker.

    Raises:
        PrectrError: another program wrote it.
    """
    try:
        return _decode_markers(record.value or b"")
    except DAMAGE as error:
        raise PrectrError(
            f"{record.topic} {record.partition}:{record.offset} has a header `{RETRY_MARKER_HEADER}` but is not a "
            f"retry marker ({error}): another version of this program, or another program, writes to the topic"
        ) from error


def decode_dead_letter(record: ConsumerRecord) -> DeadLetterRecord:
    """Decode a dead letter; a record without `ERROR_HEADERS` is one too, with reason `no_reason`."""
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
        error_headers["detail"].decode(errors="replace") if error_headers else "the record has no reason",
        error_headers["topic"].decode(errors="replace") if error_headers else "",
        _parse_number(error_headers.get("partition", b"")),
        _parse_number(error_headers.get("offset", b"")),
        headers,
    )


def _parse_number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) < 20 else -1
