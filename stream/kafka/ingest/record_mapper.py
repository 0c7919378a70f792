"""Foreign records to events: decoded, mapped as by `prectr convert`, keyed by user."""

from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from prectr.stream.convert.mapped import MappedRows
from prectr.stream.convert.mapping import MappingFile
from prectr.stream.convert.outcome import ConversionReport, Unmappable
from prectr.stream.convert.rows import Row
from prectr.stream.events.contract import Click, InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.kafka.ingest.value_decoder import ValueDecoder

_NO_VALUE: Final = Unmappable("no_value", "the record has no value")
_encode = msgspec.json.Encoder().encode


class KeyedEvent(NamedTuple):
    """An event as it is written to `search-events`. key: the user, or the session of an anonymous visitor."""

    key: str
    line: bytes
    ts: int
    is_click: bool


class MappedRecord(msgspec.Struct, frozen=True):
    """A foreign record and what becomes of it.

    Attributes:
        events: in the order of the mapping: page, then clicks.
        rejection: why the record, or a page or click of it, cannot be mapped; the record is then a dead letter.
        left_out: by reason, what is left out without a dead letter: fields, pages without items, and the record
            itself where no `when` holds.
    """

    record: ConsumerRecord
    events: list[KeyedEvent]
    rejection: Unmappable | None
    left_out: dict[str, int]

    @property
    def time(self) -> int | None:
        """The earliest event time (ms); None without an event."""
        return min((event.ts for event in self.events), default=None)

    @property
    def size(self) -> int:
        """Bytes that the record and its events take."""
        return len(self.record.value or b"") + sum(len(event.line) for event in self.events)


class _RecordEvents:
    """Takes the events of one record, and the first reason for which something of it cannot be mapped."""

    def __init__(self) -> None:
        self.events: list[KeyedEvent] = []
        self.rejection: Unmappable | None = None

    def add(self, event: dict[str, Any], place: str) -> None:
        """Add an event that the decoder of events accepts."""
        line = _encode(event)
        decoded = decode_lines([line])[0]
        if isinstance(decoded, InvalidEvent):
            self.reject(decoded.reason, place, decoded.detail)
        else:
            self.events.append(KeyedEvent(decoded.user_id, line, decoded.ts, isinstance(decoded, Click)))

    def reject(self, reason: str, place: str, detail: str) -> None:
        """Keep the first reason."""
        self.rejection = self.rejection or Unmappable(reason, detail)


class RecordMapper:
    """Maps the records of one topic; used by one thread at a time."""

    def __init__(self, mapping: MappingFile, folder: Path, decode: ValueDecoder) -> None:
        """`folder`: of a relative catalogue file.

        Raises:
            ConfigError: the mapping is wrong, or its pages are made of several rows.
            InputError: the catalogue cannot be read.
        """
        self._decode = decode
        self._sink = _RecordEvents()
        self._report = ConversionReport()
        self._rows = MappedRows(mapping, folder, self._sink, None, self._report)
        # What the catalogue lacked is not of a record.
        self._report.skipped.clear()

    def map(self, record: ConsumerRecord) -> MappedRecord:
        """Map a record; no bytes raise an error.

        Raises:
            PrectrError: the schema registry does not answer.
        """
        try:
            if record.value is None:
                raise _NO_VALUE
            row = self._decode(record.value)
        except Unmappable as error:
            return MappedRecord(record, [], error, {})
        self._sink.events, self._sink.rejection = [], None
        self._rows.add(Row("", row))
        left_out = Counter({reason: skipped.count for reason, skipped in self._report.skipped.items()})
        if self._report.empty_pages:
            left_out["empty_page"] = self._report.empty_pages
        self._report.skipped.clear()
        self._report.empty_pages = 0
        return MappedRecord(record, self._sink.events, self._sink.rejection, dict(left_out))
