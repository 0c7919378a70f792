"""Sends dead letters to `search-events` again, as they are or corrected: each letter once.

The events and the notes of the letters that they come from go out in one transaction, and the notes lie in
`dead-letters` itself, in the partition of their letters. So a letter is noted if and only if it was sent, and the note
stays for as long as the letter does: a commit of a consumer group would expire, and could not name single letters.
All retries of a system share one transactional id: a second one ends the first and what that has left open before it
reads the notes.
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
from prectr.stream.kafka.dlq.reader import DeadLetterReader, Progress, RetriedSet, read_retried
from prectr.stream.kafka.dlq.records import (
    RETRY_MARKER_HEADER,
    DeadLetterRecord,
    DeadLetterRef,
    RetryMarkers,
    decode_dead_letter,
    is_retry_marker,
    parse_ref,
)

_MAX_PER_TRANSACTION: Final = 100
"""Letters a transaction, at most; a letter that is sent is no larger than an event, 1 MiB."""
_FLUSH_TIMEOUT: Final = 60
_CLOSE_TIMEOUT: Final = 5
_FENCED_ERRORS: Final = (ProducerFencedError, InvalidProducerEpochError)
_MAX_LISTED: Final = 1_000
"""Letters that are told one by one; the rest only counts."""
_T = TypeVar("_T")


class RetryItem(msgspec.Struct, frozen=True):
    """An event that would be, or was, sent. source: its letter, or the line of the file."""

    source: str
    type: str
    request_id: str
    partition: int


class RejectedItem(msgspec.Struct, frozen=True):
    """What was not sent, and why. source: its letter, or the line of the file."""

    source: str
    reason: str
    detail: str


class RetryResult(msgspec.Struct):
    """What became of the letters.

    sent: events sent, or in a dry run those that would be. before: letters left out, since they were retried before.
    events, not_sent: the first 1,000 of each; refused: how many were not sent.
    """

    sent: int = 0
    already_retried: int = 0
    rejected: int = 0
    events: list[RetryItem] = []
    rejected_items: list[RejectedItem] = []

    def reject(self, source: str, reason: str, detail: str) -> None:
        """Count what is not sent."""
        self.rejected += 1
        if len(self.rejected_items) < _MAX_LISTED:
            self.rejected_items.append(RejectedItem(source, reason, detail))


class _Candidate(msgspec.Struct, frozen=True):
    """Something to send. letter: whence; None for a line that names none."""

    source: str
    value: bytes
    dead_letter: DeadLetterRecord | None


class Selection(Protocol):
    """Which letters are to be sent again."""

    def start(self) -> dict[int, int] | None:
        """By partition, the first letter that may be among them; None where any may."""

    def candidates(
        self, reader: DeadLetterReader, retried: RetriedSet, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Yield them in order; what cannot be found goes to `result`."""


class ByReason(msgspec.Struct, frozen=True):
    """All letters of a reason, as they are."""

    reason: str

    def start(self) -> dict[int, int] | None:
        """All partitions, from their beginnings."""
        return None

    def candidates(
        self, reader: DeadLetterReader, retried: RetriedSet, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Read the topic through."""
        for records in reader.read(progress=progress):
            for dead_letter in (_truncated(decode_dead_letter(each)) for each in records if not is_retry_marker(each)):
                if dead_letter.reason == self.reason:
                    yield _unchanged(dead_letter)


class ByRef(msgspec.Struct, frozen=True):
    """Single letters, as they are."""

    refs: list[DeadLetterRef]

    def start(self) -> dict[int, int] | None:
        """From the first of the letters in each partition."""
        return _lowest_offsets(self.refs)

    def candidates(
        self, reader: DeadLetterReader, retried: RetriedSet, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Fetch them."""
        for done, chunk in enumerate(_chunks(dict.fromkeys(self.refs), _MAX_PER_TRANSACTION)):
            progress(done * _MAX_PER_TRANSACTION, len(self.refs))
            for dead_letter in _fetch(reader, chunk, result).values():
                yield _unchanged(dead_letter)


class FromFile(msgspec.Struct, frozen=True):
    """Lines of a file, each an event, or `{"dead_letter": "PARTITION:OFFSET", "event": {...}}`."""

    path: Path

    def start(self) -> dict[int, int] | None:
        """From the first of the letters that the file names in each partition."""
        return _lowest_offsets(line.ref for line in self._lines() if line.ref is not None)

    def candidates(
        self, reader: DeadLetterReader, retried: RetriedSet, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Read the file, and fetch the letters that it names, for their headers."""
        total, done = self.path.stat().st_size, 0
        for chunk in _chunks(self._lines(), _MAX_PER_TRANSACTION):
            wanted = [(line.ref, line.source) for line in chunk if line.ref is not None]
            dead_letters = _fetch(reader, [address for address, _ in wanted], result, dict(wanted))
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
    """A line of a file of corrected letters. size: in bytes, with its line end."""

    source: str
    ref: DeadLetterRef | None
    event: bytes
    size: int


class _Envelope(msgspec.Struct):
    """The fields of a line that names a letter; an event has neither of them."""

    dead_letter: str | msgspec.UnsetType = msgspec.UNSET
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    type: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode


def _parse_line(path: Path, number: int, line: bytes) -> _FileLine:
    """Take a line apart. What is no JSON is an event that will be refused."""
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
    return _FileLine(f"{source} (letter {ref})", ref, event, len(line))


def retry_dead_letters(
    connection: Connection,
    topics: Topics,
    selection: Selection,
    progress: Progress,
    *,
    dry_run: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> RetryResult:
    """Send letters again, keyed by their users, with their own headers; each once, whatever happens.

    An event that is still not valid is not sent. dry_run: send nothing. stop: asked after each transaction.

    Raises:
        PrectrError: no broker or no topic, or another retry has begun meanwhile; what has been sent is noted.
        InputError: the file of corrected letters cannot be read.
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
            sendable = list(_validated(candidates, retried, partitions, result))
            if producer is not None and sendable:
                _send_transaction(producer, connection, topics, sendable)
            result.sent += len(sendable)
            if stop():
                break
    return result


class _Sendable(msgspec.Struct, frozen=True):
    """An event that is valid, with its key and partition."""

    value: bytes
    key: bytes
    partition: int
    dead_letter: DeadLetterRecord | None


def _validated(
    candidates: Sequence[_Candidate], retried: RetriedSet, partitions: int, result: RetryResult
) -> Iterator[_Sendable]:
    """Validate; what passes is taken as retried from here on."""
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
        if len(result.events) < _MAX_LISTED:
            kind = str(type(event).__struct_config__.tag)
            result.events.append(RetryItem(candidate.source, kind, event.request_id, partition))
        yield _Sendable(candidate.value, event.user_id.encode(), partition, dead_letter)


def _send_transaction(
    producer: KafkaProducer, connection: Connection, topics: Topics, sendable: Sequence[_Sendable]
) -> None:
    """Events and notes in one transaction."""
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
                        raise future.exception or KafkaTimeoutError("a record was not taken in time")
                failpoint(Failpoint.RETRY_BEFORE_COMMIT)
            except BaseException:
                with suppress(KafkaError):
                    # Where this fails, the next retry ends the transaction, or the broker does after a minute.
                    producer.abort_transaction()
                raise
            producer.commit_transaction()
            failpoint(Failpoint.RETRY_AFTER_COMMIT)
        except KafkaError as error:
            # Raised as it is, or inside the refusal of what was to be sent next.
            if not any(isinstance(each, _FENCED_ERRORS) for each in (error, *error.args)):
                raise
            raise PrectrError(
                "another `prectr dlq retry` has begun and ended this one; what this one has sent is noted and is not "
                "sent again"
            ) from error


def _retry_markers(dead_letters: Iterable[DeadLetterRecord]) -> Iterator[tuple[int, bytes]]:
    """The note of each partition of `dead-letters`."""
    ordered = sorted(dead_letters, key=_marker_key)
    for partition, in_partition in groupby(ordered, key=lambda letter: letter.ref.partition):
        markers = [
            RetryMarkers(reason, topic, source, [letter.ref.offset for letter in same])
            for (_, reason, topic, source, _), same in groupby(
                in_partition, key=lambda letter: (*_marker_key(letter)[:4], 0)
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
    """Fetch letters; what is not there goes to `result`. sources: what to call them, where not by their addresses."""
    markers: set[DeadLetterRef] = set()
    dead_letters = {}
    for address, record in reader.find(refs):
        if is_retry_marker(record):
            markers.add(address)
        else:
            dead_letters[address] = _truncated(decode_dead_letter(record))
    for address in refs:
        if address not in dead_letters:
            why = "a note of which letters were retried" if address in markers else reader.describe_missing(address)
            result.reject((sources or {}).get(address, str(address)), "not_found", why)
    return {address: dead_letters[address] for address in refs if address in dead_letters}


def _truncated(dead_letter: DeadLetterRecord) -> DeadLetterRecord:
    """The letter with no more of its value than tells that it is too large, so that many can be held."""
    if len(dead_letter.value) <= MAX_EVENT_BYTES:
        return dead_letter
    return msgspec.structs.replace(dead_letter, value=dead_letter.value[: MAX_EVENT_BYTES + 1])


def _lowest_offsets(refs: Iterable[DeadLetterRef]) -> dict[int, int]:
    lowest: dict[int, int] = {}
    for partition, offset in refs:
        lowest[partition] = min(offset, lowest.get(partition, offset))
    return lowest


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Cut into lists of at most `size`."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
