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
from prectr.state.failpoints import at_point
from prectr.stream.events.contract import MAX_EVENT_BYTES, Rejected
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.client import Connection, let_go
from prectr.stream.kafka.client.topics import Topics, partition_count
from prectr.stream.kafka.dlq.reader import LetterReader, Progress, Retried, read_retried
from prectr.stream.kafka.dlq.records import NOTE, Address, Letter, RetriedLetters, is_note, read_address, read_letter

_AT_ONCE: Final = 100
"""Letters a transaction, at most; a letter that is sent is no larger than an event, 1 MiB."""
_FLUSH_SECONDS: Final = 60
_CLOSE_SECONDS: Final = 5
_FENCED: Final = (ProducerFencedError, InvalidProducerEpochError)
_LISTED: Final = 1_000
"""Letters that are told one by one; the rest only counts."""
_Thing = TypeVar("_Thing")


class ToSend(msgspec.Struct, frozen=True):
    """An event that would be, or was, sent. source: its letter, or the line of the file."""

    source: str
    type: str
    request_id: str
    partition: int


class NotSent(msgspec.Struct, frozen=True):
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
    before: int = 0
    refused: int = 0
    events: list[ToSend] = []
    not_sent: list[NotSent] = []

    def refuse(self, source: str, reason: str, detail: str) -> None:
        """Count what is not sent."""
        self.refused += 1
        if len(self.not_sent) < _LISTED:
            self.not_sent.append(NotSent(source, reason, detail))


class _Candidate(msgspec.Struct, frozen=True):
    """Something to send. letter: whence; None for a line that names none."""

    source: str
    value: bytes
    letter: Letter | None


class Selection(Protocol):
    """Which letters are to be sent again."""

    def start(self) -> dict[int, int] | None:
        """By partition, the first letter that may be among them; None where any may."""

    def candidates(
        self, reader: LetterReader, retried: Retried, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Yield them in order; what cannot be found goes to `result`."""


class ByReason(msgspec.Struct, frozen=True):
    """All letters of a reason, as they are."""

    reason: str

    def start(self) -> dict[int, int] | None:
        """All partitions, from their beginnings."""
        return None

    def candidates(
        self, reader: LetterReader, retried: Retried, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Read the topic through."""
        for records in reader.read(progress=progress):
            for letter in (_within_reason(read_letter(each)) for each in records if not is_note(each)):
                if letter.reason == self.reason:
                    yield _as_it_is(letter)


class ByAddress(msgspec.Struct, frozen=True):
    """Single letters, as they are."""

    addresses: list[Address]

    def start(self) -> dict[int, int] | None:
        """From the first of the letters in each partition."""
        return _lowest(self.addresses)

    def candidates(
        self, reader: LetterReader, retried: Retried, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Fetch them."""
        for done, some in enumerate(_pieces(dict.fromkeys(self.addresses), _AT_ONCE)):
            progress(done * _AT_ONCE, len(self.addresses))
            for letter in _fetched(reader, some, result).values():
                yield _as_it_is(letter)


class Corrected(msgspec.Struct, frozen=True):
    """Lines of a file, each an event, or `{"letter": "PARTITION:OFFSET", "event": {...}}`."""

    path: Path

    def start(self) -> dict[int, int] | None:
        """From the first of the letters that the file names in each partition."""
        return _lowest(line.address for line in self._lines() if line.address is not None)

    def candidates(
        self, reader: LetterReader, retried: Retried, result: RetryResult, progress: Progress
    ) -> Iterator[_Candidate]:
        """Read the file, and fetch the letters that it names, for their headers."""
        total, done = self.path.stat().st_size, 0
        for some in _pieces(self._lines(), _AT_ONCE):
            wanted = [(line.address, line.source) for line in some if line.address is not None]
            letters = _fetched(reader, [address for address, _ in wanted], result, dict(wanted))
            for line in some:
                done += line.size
                progress(done, total)
                if line.address is None:
                    yield _Candidate(line.source, line.event, None)
                elif (letter := letters.get(line.address)) is not None:
                    yield _Candidate(line.source, line.event, letter)

    def _lines(self) -> Iterator["_Line"]:
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _read_line(self.path, number, line)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error


def _as_it_is(letter: Letter) -> _Candidate:
    return _Candidate(str(letter.address), letter.value, letter)


class _Line(msgspec.Struct, frozen=True):
    """A line of a file of corrected letters. size: in bytes, with its line end."""

    source: str
    address: Address | None
    event: bytes
    size: int


class _Wrapped(msgspec.Struct):
    """The fields of a line that names a letter; an event has neither of them."""

    letter: str | msgspec.UnsetType = msgspec.UNSET
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    type: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_wrapped: Final = msgspec.json.Decoder(_Wrapped).decode


def _read_line(path: Path, number: int, line: bytes) -> _Line:
    """Take a line apart. What is no JSON is an event that will be refused."""
    source, stripped = f"{path} line {number}", line.strip()
    try:
        found = _decode_wrapped(stripped)
    except (msgspec.MsgspecError, RecursionError):
        return _Line(source, None, stripped, len(line))
    if isinstance(found.type, msgspec.Raw) or (
        isinstance(found.letter, msgspec.UnsetType) and isinstance(found.event, msgspec.UnsetType)
    ):
        return _Line(source, None, stripped, len(line))
    event = bytes(found.event) if isinstance(found.event, msgspec.Raw) else b"null"
    if isinstance(found.letter, msgspec.UnsetType):
        return _Line(source, None, event, len(line))
    try:
        address = read_address(found.letter)
    except UsageError as error:
        raise InputError(f"{source}: {error}") from error
    return _Line(f"{source} (letter {address})", address, event, len(line))


def retry_letters(
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
            stack.callback(let_go, producer, _CLOSE_SECONDS)
            with connection.errors():
                producer.init_transactions()
        reader = LetterReader(connection, topics, await_open=not dry_run)
        stack.callback(reader.close)
        retried = read_retried(reader, selection.start(), lambda done, total: progress(done, 2 * total))
        found = selection.candidates(reader, retried, result, lambda done, total: progress(total + done, 2 * total))
        for candidates in _pieces(found, _AT_ONCE):
            sendable = list(_sendable(candidates, retried, partitions, result))
            if producer is not None and sendable:
                _send(producer, connection, topics, sendable)
            result.sent += len(sendable)
            if stop():
                break
    return result


class _Sendable(msgspec.Struct, frozen=True):
    """An event that is valid, with its key and partition."""

    value: bytes
    key: bytes
    partition: int
    letter: Letter | None


def _sendable(
    candidates: Sequence[_Candidate], retried: Retried, partitions: int, result: RetryResult
) -> Iterator[_Sendable]:
    """Validate; what passes is taken as retried from here on."""
    events = decode_lines([candidate.value for candidate in candidates])
    for candidate, event in zip(candidates, events, strict=True):
        letter = candidate.letter
        if letter is not None and letter.address in retried:
            result.before += 1
            continue
        if isinstance(event, Rejected):
            result.refuse(candidate.source, event.reason, event.detail)
            continue
        if letter is not None:
            retried.add(letter.address)
        (partition,) = partitions_of([event.user_id], partitions)
        if len(result.events) < _LISTED:
            kind = str(type(event).__struct_config__.tag)
            result.events.append(ToSend(candidate.source, kind, event.request_id, partition))
        yield _Sendable(candidate.value, event.user_id.encode(), partition, letter)


def _send(producer: KafkaProducer, connection: Connection, topics: Topics, sendable: Sequence[_Sendable]) -> None:
    """Events and notes in one transaction."""
    letters = [event.letter for event in sendable if event.letter is not None]
    with connection.errors():
        try:
            producer.begin_transaction()
            try:
                sent = [
                    producer.send(
                        topics.events,
                        value=event.value,
                        key=event.key,
                        partition=event.partition,
                        headers=event.letter.headers if event.letter is not None else [],
                    )
                    for event in sendable
                ]
                sent += [
                    producer.send(topics.dead_letters, value=value, partition=partition, headers=[(NOTE, b"1")])
                    for partition, value in _notes(letters)
                ]
                producer.flush(timeout=_FLUSH_SECONDS)
                for future in sent:
                    if not future.succeeded():
                        raise future.exception or KafkaTimeoutError("a record was not taken in time")
                at_point("retry_before_commit")
            except BaseException:
                with suppress(KafkaError):
                    # Where this fails, the next retry ends the transaction, or the broker does after a minute.
                    producer.abort_transaction()
                raise
            producer.commit_transaction()
            at_point("retry_after_commit")
        except KafkaError as error:
            # Raised as it is, or inside the refusal of what was to be sent next.
            if not any(isinstance(each, _FENCED) for each in (error, *error.args)):
                raise
            raise PrectrError(
                "another `prectr dlq retry` has begun and ended this one; what this one has sent is noted and is not "
                "sent again"
            ) from error


def _notes(letters: Iterable[Letter]) -> Iterator[tuple[int, bytes]]:
    """The note of each partition of `dead-letters`."""
    ordered = sorted(letters, key=_note_key)
    for partition, those in groupby(ordered, key=lambda letter: letter.address.partition):
        note = [
            RetriedLetters(reason, topic, source, [letter.address.offset for letter in same])
            for (_, reason, topic, source, _), same in groupby(those, key=lambda letter: (*_note_key(letter)[:4], 0))
        ]
        yield partition, msgspec.json.encode(note)


def _note_key(letter: Letter) -> tuple[int, str, str, int, int]:
    return letter.address.partition, letter.reason, letter.topic, letter.partition, letter.address.offset


def _fetched(
    reader: LetterReader,
    addresses: Sequence[Address],
    result: RetryResult,
    sources: Mapping[Address, str] | None = None,
) -> dict[Address, Letter]:
    """Fetch letters; what is not there goes to `result`. sources: what to call them, where not by their addresses."""
    notes: set[Address] = set()
    letters = {}
    for address, record in reader.find(addresses):
        if is_note(record):
            notes.add(address)
        else:
            letters[address] = _within_reason(read_letter(record))
    for address in addresses:
        if address not in letters:
            why = "a note of which letters were retried" if address in notes else reader.where(address)
            result.refuse((sources or {}).get(address, str(address)), "no_letter", why)
    return {address: letters[address] for address in addresses if address in letters}


def _within_reason(letter: Letter) -> Letter:
    """The letter with no more of its value than tells that it is too large, so that many can be held."""
    if len(letter.value) <= MAX_EVENT_BYTES:
        return letter
    return msgspec.structs.replace(letter, value=letter.value[: MAX_EVENT_BYTES + 1])


def _lowest(addresses: Iterable[Address]) -> dict[int, int]:
    lowest: dict[int, int] = {}
    for partition, offset in addresses:
        lowest[partition] = min(offset, lowest.get(partition, offset))
    return lowest


def _pieces(things: Iterable[_Thing], size: int) -> Iterator[list[_Thing]]:
    """Cut into lists of at most `size`."""
    left = iter(things)
    while piece := list(islice(left, size)):
        yield piece
