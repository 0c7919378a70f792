"""Sends dead letters to `search-events` again, unchanged or corrected: each of them once.

The events and the retry markers of their dead letters are sent in one transaction, and the markers are written to
`dead-letters` itself, into the partition of their dead letters. So a dead letter has a marker if and only if it was
sent, and the marker is retained as long as the dead letter: a commit of a consumer group would expire, and could not
name single dead letters. All retries of a system share one transactional id: a second retry fences the first, and ends
its open transaction, before it reads the markers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec
from kafka import KafkaProducer
from kafka.errors import InvalidProducerEpochError, KafkaError, KafkaTimeoutError, ProducerFencedError

from prectr.state.errors import InputError, PrectrError, UsageError
from prectr.state.failpoints import Failpoint, failpoint
from prectr.stream.events.contract import MAX_EVENT_BYTES, InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.client import Connection, close_producer
from prectr.stream.kafka.client.topics import Topics, partition_count
from prectr.stream.kafka.dlq.reader import DeadLetterReader, RetriedSet, read_retried
from prectr.stream.kafka.dlq.records import (
    RETRY_MARKER_HEADER,
    DeadLetterRecord,
    DeadLetterRef,
    RetryMarkers,
    decode_dead_letter,
    is_retry_marker,
    parse_ref,
)
from prectr.stream.kafka.io.topic_reader import Progress

_MAX_PER_TRANSACTION: Final = 100
"""Most dead letters per transaction; each of those sent is no larger than an event, 1 MiB."""
_FLUSH_TIMEOUT: Final = 60
_CLOSE_TIMEOUT: Final = 5
_FENCED_ERRORS: Final = (ProducerFencedError, InvalidProducerEpochError)
_MAX_LISTED: Final = 1_000
"""Items that a result lists; further ones are only counted."""
_T = TypeVar("_T")


class RetryItem(msgspec.Struct, frozen=True):
    """An event that was sent, or would be; `source` is its dead letter, or the line of the file."""

    source: str
    type: str
    request_id: str
    partition: int


class RejectedItem(msgspec.Struct, frozen=True):
    """An item that was not sent, and why; `source` is its dead letter, or the line of the file."""

    source: str
    reason: str
    detail: str


class RetryResult(msgspec.Struct):
    """Result of a retry.

    Attributes:
        sent: events sent, or in a dry run those that would be.
        late: of these, those whose attribution window has passed at the watermark of their partition.
        already_retried: dead letters skipped because they were retried before.
        rejected: items that were not sent.
        events: the first 1,000 sent.
        rejected_items: the first 1,000 rejected.
    """

    sent: int = 0
    late: int = 0
    already_retried: int = 0
    rejected: int = 0
    events: list[RetryItem] = []
    rejected_items: list[RejectedItem] = []

    def reject(self, source: str, reason: str, detail: str) -> None:
        """Count an item that is not sent."""
        self.rejected += 1
        if len(self.rejected_items) < _MAX_LISTED:
            self.rejected_items.append(RejectedItem(source, reason, detail))


class _Candidate(msgspec.Struct, frozen=True):
    """An event to send; `dead_letter` is None for a line of a file that names none."""

    source: str
    value: bytes
    dead_letter: DeadLetterRecord | None


class Selection(Protocol):
    """Selects the dead letters to send again."""

    def start(self) -> dict[int, int] | None:
        """Return, by partition, the first dead letter that may be selected; None if any may."""

    def candidates(
        self, reader: DeadLetterReader, retried: RetriedSet, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Yield the events in order; missing dead letters are rejected in `result`."""


class ByReason(msgspec.Struct, frozen=True):
    """All dead letters with a reason, unchanged."""

    reason: str

    def start(self) -> dict[int, int] | None:
        """Return None: any dead letter may have the reason."""
        return None

    def candidates(
        self, reader: DeadLetterReader, retried: RetriedSet, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Yield those with the reason from the whole topic."""
        for records in reader.read(progress=progress):
            for dead_letter in (_truncated(decode_dead_letter(each)) for each in records if not is_retry_marker(each)):
                if dead_letter.reason == self.reason:
                    yield _unchanged(dead_letter)


class ByRef(msgspec.Struct, frozen=True):
    """Single dead letters, unchanged."""

    refs: list[DeadLetterRef]

    def start(self) -> dict[int, int] | None:
        """Return the first of them in each partition."""
        return _lowest_offsets(self.refs)

    def candidates(
        self, reader: DeadLetterReader, retried: RetriedSet, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Yield them, fetched in chunks."""
        for done, chunk in enumerate(_chunks(dict.fromkeys(self.refs), _MAX_PER_TRANSACTION)):
            progress(done * _MAX_PER_TRANSACTION, len(self.refs))
            for dead_letter in _fetch(reader, chunk, result).values():
                yield _unchanged(dead_letter)


class FromFile(msgspec.Struct, frozen=True):
    """Lines of a file, each an event, or `{"dead_letter": "PARTITION:OFFSET", "event": {...}}`."""

    path: Path

    def start(self) -> dict[int, int] | None:
        """Return the first dead letter that the file names in each partition."""
        return _lowest_offsets(line.ref for line in self._lines() if line.ref is not None)

    def candidates(
        self, reader: DeadLetterReader, retried: RetriedSet, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Yield the events of the file, with the dead letters that it names, whose headers are sent again."""
        total, done = self.path.stat().st_size, 0
        for chunk in _chunks(self._lines(), _MAX_PER_TRANSACTION):
            wanted = [(line.ref, line.source) for line in chunk if line.ref is not None]
            dead_letters = _fetch(reader, [ref for ref, _ in wanted], result, dict(wanted))
            for line in chunk:
                done += line.size
                progress(done, total)
                if line.ref is None:
                    yield _Candidate(line.source, line.event, None)
                elif (dead_letter := dead_letters.get(line.ref)) is not None:
                    yield _Candidate(line.source, line.event, dead_letter)

    def _lines(self) -> Iterator["_FileLine"]:
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _parse_line(self.path, number, line)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error


def _unchanged(dead_letter: DeadLetterRecord) -> _Candidate:
    return _Candidate(str(dead_letter.ref), dead_letter.value, dead_letter)


class _FileLine(msgspec.Struct, frozen=True):
    """A line of a file of corrected events; its size in bytes includes the line end."""

    source: str
    ref: DeadLetterRef | None
    event: bytes
    size: int


class _Envelope(msgspec.Struct):
    """Fields of a line that names a dead letter; an event has none of the first two."""

    dead_letter: str | msgspec.UnsetType = msgspec.UNSET
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    type: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode


def _parse_line(path: Path, number: int, line: bytes) -> _FileLine:
    """Parse a line; one that is not JSON is returned as an event, whose validation will fail."""
    source, stripped = f"{path} line {number}", line.strip()
    try:
        envelope = _decode_envelope(stripped)
    except (msgspec.MsgspecError, RecursionError):
        return _FileLine(source, None, stripped, len(line))
    if isinstance(envelope.type, msgspec.Raw) or (
        isinstance(envelope.dead_letter, msgspec.UnsetType) and isinstance(envelope.event, msgspec.UnsetType)
    ):
        return _FileLine(source, None, stripped, len(line))
    event = bytes(envelope.event) if isinstance(envelope.event, msgspec.Raw) else b"null"
    if isinstance(envelope.dead_letter, msgspec.UnsetType):
        return _FileLine(source, None, event, len(line))
    try:
        ref = parse_ref(envelope.dead_letter)
    except UsageError as error:
        raise InputError(f"{source}: {error}") from error
    return _FileLine(f"{source} (dead letter {ref})", ref, event, len(line))


def retry_dead_letters(
    connection: Connection,
    topics: Topics,
    selection: Selection,
    progress: Progress,
    *,
    dry_run: bool = False,
    is_late: Callable[[int, int], bool] = lambda _partition, _ts: False,
    stop: Callable[[], bool] = lambda: False,
) -> RetryResult:
    """Send dead letters again, keyed by their users, with their own headers; each exactly once.

    An event that is still invalid is not sent.

    Args:
        dry_run: send nothing.
        is_late: whether an event, by partition and time (ms), is too late to be joined; it is sent all the same.
        stop: checked after each transaction.

    Raises:
        PrectrError: the broker does not answer, the topic does not exist, or another retry has started meanwhile; the
            events sent before are marked as retried.
        InputError: the file of corrected events cannot be read.
    """
    result = RetryResult()
    partitions = partition_count(connection, topics.events)
    with ExitStack() as stack:
        producer: KafkaProducer | None = None
        if not dry_run:
            producer = connection.producer(transactional_id=f"{topics.prefix}dlq-retry")
            stack.callback(close_producer, producer, _CLOSE_TIMEOUT)
            with connection.translate_errors():
                producer.init_transactions()
        reader = DeadLetterReader(connection, topics, await_open=not dry_run)
        stack.callback(reader.close)
        retried = read_retried(reader, selection.start(), lambda done, total: progress(done, 2 * total))
        found = selection.candidates(reader, retried, result, lambda done, total: progress(total + done, 2 * total))
        for candidates in _chunks(found, _MAX_PER_TRANSACTION):
            sendable = list(_validated(candidates, retried, partitions, result, is_late))
            if producer is not None and sendable:
                _send_transaction(producer, connection, topics, sendable)
            result.sent += len(sendable)
            if stop():
                break
    return result


class _Sendable(msgspec.Struct, frozen=True):
    """A valid event with its key and partition."""

    value: bytes
    key: bytes
    partition: int
    dead_letter: DeadLetterRecord | None


def _validated(
    candidates: Sequence[_Candidate],
    retried: RetriedSet,
    partitions: int,
    result: RetryResult,
    is_late: Callable[[int, int], bool],
) -> Iterator[_Sendable]:
    """Yield the valid events; their dead letters count as retried from then on."""
    events = decode_lines([candidate.value for candidate in candidates])
    for candidate, event in zip(candidates, events, strict=True):
        dead_letter = candidate.dead_letter
        if dead_letter is not None and dead_letter.ref in retried:
            result.already_retried += 1
            continue
        if isinstance(event, InvalidEvent):
            result.reject(candidate.source, event.reason, event.detail)
            continue
        if dead_letter is not None:
            retried.add(dead_letter.ref)
        (partition,) = partitions_of([event.user_id], partitions)
        result.late += is_late(partition, event.ts)
        if len(result.events) < _MAX_LISTED:
            kind = str(type(event).__struct_config__.tag)
            result.events.append(RetryItem(candidate.source, kind, event.request_id, partition))
        yield _Sendable(candidate.value, event.user_id.encode(), partition, dead_letter)


def _send_transaction(
    producer: KafkaProducer, connection: Connection, topics: Topics, sendable: Sequence[_Sendable]
) -> None:
    """Send events and retry markers in one transaction."""
    dead_letters = [event.dead_letter for event in sendable if event.dead_letter is not None]
    with connection.translate_errors():
        try:
            producer.begin_transaction()
            try:
                futures = [
                    producer.send(
                        topics.events,
                        value=event.value,
                        key=event.key,
                        partition=event.partition,
                        headers=event.dead_letter.headers if event.dead_letter is not None else [],
                    )
                    for event in sendable
                ]
                futures += [
                    producer.send(
                        topics.dead_letters, value=value, partition=partition, headers=[(RETRY_MARKER_HEADER, b"1")]
                    )
                    for partition, value in _retry_markers(dead_letters)
                ]
                producer.flush(timeout=_FLUSH_TIMEOUT)
                for future in futures:
                    if not future.succeeded():
                        raise future.exception or KafkaTimeoutError("a record was not acknowledged in time")
                failpoint(Failpoint.RETRY_BEFORE_COMMIT)
            except BaseException:
                with suppress(KafkaError):
                    # If this fails, the next retry ends the transaction, or the broker does after a minute.
                    producer.abort_transaction()
                raise
            producer.commit_transaction()
            failpoint(Failpoint.RETRY_AFTER_COMMIT)
        except KafkaError as error:
            # Raised directly, or as the cause of the error of the next record.
            if not any(isinstance(each, _FENCED_ERRORS) for each in (error, *error.args)):
                raise
            raise PrectrError(
                "another retry of dead letters has started and fenced this one; its events are marked as retried "
                "and are not sent again"
            ) from error


def _retry_markers(dead_letters: Iterable[DeadLetterRecord]) -> Iterator[tuple[int, bytes]]:
    """Yield the retry marker of each partition of `dead-letters`."""
    ordered = sorted(dead_letters, key=_marker_key)
    for partition, in_partition in groupby(ordered, key=lambda dead_letter: dead_letter.ref.partition):
        markers = [
            RetryMarkers(reason, topic, source, [dead_letter.ref.offset for dead_letter in same])
            for (_, reason, topic, source, _), same in groupby(
                in_partition, key=lambda dead_letter: (*_marker_key(dead_letter)[:4], 0)
            )
        ]
        yield partition, msgspec.json.encode(markers)


def _marker_key(dead_letter: DeadLetterRecord) -> tuple[int, str, str, int, int]:
    return (
        dead_letter.ref.partition,
        dead_letter.reason,
        dead_letter.topic,
        dead_letter.partition,
        dead_letter.ref.offset,
    )


def _fetch(
    reader: DeadLetterReader,
    refs: Sequence[DeadLetterRef],
    result: RetryResult,
    sources: Mapping[DeadLetterRef, str] | None = None,
) -> dict[DeadLetterRef, DeadLetterRecord]:
    """Fetch dead letters; missing ones are rejected in `result`, under their name in `sources` or their ref."""
    markers: set[DeadLetterRef] = set()
    dead_letters = {}
    for ref, record in reader.find(refs):
        if is_retry_marker(record):
            markers.add(ref)
        else:
            dead_letters[ref] = _truncated(decode_dead_letter(record))
    for ref in refs:
        if ref not in dead_letters:
            why = "a retry marker" if ref in markers else reader.describe_missing(ref)
            result.reject((sources or {}).get(ref, str(ref)), "not_found", why)
    return {ref: dead_letters[ref] for ref in refs if ref in dead_letters}


def _truncated(dead_letter: DeadLetterRecord) -> DeadLetterRecord:
    """Cut an oversized value to just over the limit of events, so that many dead letters fit into memory."""
    if len(dead_letter.value) <= MAX_EVENT_BYTES:
        return dead_letter
    return msgspec.structs.replace(dead_letter, value=dead_letter.value[: MAX_EVENT_BYTES + 1])


def _lowest_offsets(refs: Iterable[DeadLetterRef]) -> dict[int, int]:
    lowest: dict[int, int] = {}
    for partition, offset in refs:
        lowest[partition] = min(offset, lowest.get(partition, offset))
    return lowest


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Split into lists of at most `size` items."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
