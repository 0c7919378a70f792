"""Dead letters of a replay: each is kept in a file, and the most frequent kinds are told with an example."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from prectr.stream.join.operator import RejectedRecord
from prectr.stream.sinks.dead_letters import DeadLetter, DeadLetterFile

_MAX_KINDS: Final = 200
_OTHER_KINDS: Final = "other details"
_EXAMPLE_BYTES: Final = 200
_VARIABLE: Final = re.compile(r"[0-9]+|'[^']*'")
"""Parts of a detail that differ between records of the same kind."""


class RejectionKind(msgspec.Struct):
    """Dead letters with the same reason and, but for numbers and quoted texts, the same detail.

    Attributes:
        detail: of the first one.
        file: the first one's file.
        line: its line (row), from 1.
        example: its first 200 bytes, those that are not UTF-8 escaped.
    """

    reason: str
    detail: str
    count: int
    file: str
    line: int
    example: str


class Place(NamedTuple):
    """A line of a file. line: the number of lines before it."""

    file: str
    line: int


class Rejections:
    """Writes and counts rejected records.

    Equal records on consecutive lines become one dead letter with a count, so that a few bytes of compressed log do
    not fill the disk.
    """

    def __init__(self, path: Path, length: int, kinds: list[RejectionKind], counts: dict[str, int]) -> None:
        """Open the file of dead letters, as it was at `length` bytes.

        Args:
            kinds, counts: kinds and numbers by reason, as of the checkpoint that is resumed.

        Raises:
            StateError, PrectrError: as `DeadLetterFile`.
        """
        self._file = DeadLetterFile(path, length)
        self.counts = counts
        self._kinds = {(kind.reason, _VARIABLE.sub("#", kind.detail)): kind for kind in kinds}
        self._last: DeadLetter | None = None

    @property
    def kinds(self) -> list[RejectionKind]:
        """The kinds, the most frequent first."""
        return sorted(self._kinds.values(), key=lambda kind: -kind.count)

    def add(self, record: RejectedRecord, locate: Callable[[int], Place]) -> None:
        """Add a record; `locate` returns the place that its offset stands for."""
        place = locate(record.offset)
        self.counts[record.reason] = self.counts.get(record.reason, 0) + 1
        self._count_kind(record, place)
        last = self._last
        if (
            last is not None
            and place == (last.topic, last.offset + last.count)
            and (record.reason, record.detail, record.value) == (last.reason, last.detail, last.value)
        ):
            self._last = msgspec.structs.replace(last, count=last.count + 1)
            return
        self._write_last()
        self._last = DeadLetter(
            value=record.value,
            topic=place.file,
            partition=0,
            offset=place.line,
            reason=record.reason,
            detail=record.detail,
        )

    def flush(self) -> int:
        """Write and fsync everything; return the file's length, for resuming."""
        self._write_last()
        return self._file.flush()

    def close(self) -> None:
        """Write what is in memory and close the file."""
        try:
            self._write_last()
        finally:
            self._file.close()

    def _write_last(self) -> None:
        if self._last is not None:
            self._file.append(self._last)
            self._last = None

    def _count_kind(self, record: RejectedRecord, place: Place) -> None:
        key = (record.reason, _VARIABLE.sub("#", record.detail))
        if key not in self._kinds and len(self._kinds) >= _MAX_KINDS:
            key = (record.reason, _OTHER_KINDS)
        kind = self._kinds.get(key)
        if kind is not None:
            kind.count += 1
            return
        detail = record.detail if key[1] != _OTHER_KINDS else _OTHER_KINDS
        example = record.value[:_EXAMPLE_BYTES].decode(errors="backslashreplace")
        self._kinds[key] = RejectionKind(record.reason, detail, 1, place.file, place.line + 1, example)
