"""Batches of records that the core decodes; what it is not sure of is decoded in Python, so that nothing differs."""

from array import array
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from prectr.stream.events.contract import Event, InvalidEvent, ResultPage
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.event_batch import EventBatch
from prectr.stream.events.query_key import normalise_query
from prectr.stream.native import core
from prectr.stream.records import decode_page

_WHOLE: Final = 0
_KINDS: Final = {"impression": 0, "click": 1, "unreadable": 2}
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class NativeEventBatch(EventBatch):
    """Records in the memory of the core. `partition`: the part that this is; all parts have all lines and offsets."""

    __slots__ = ("core", "invalid", "partition")

    def __init__(self, lines: Sequence[bytes], offsets: Sequence[int]) -> None:
        """Decode the lines."""
        self.lines = lines
        self.offsets = offsets
        self.partition = _WHOLE
        self.invalid: dict[int, InvalidEvent] = {}
        self.core = core.EventBatch(lines, array("q", offsets))
        if unsure := self.core.unsure():
            self._decode(unsure)
        for index in self.core.odd_queries():
            self.core.put_query_key(index, normalise_query(self.core.query(index)))

    @property
    def events(self) -> Sequence[Event | InvalidEvent]:  # type: ignore[override]  # not kept
        """The events of all lines, decoded again, by Python."""
        return decode_lines(self.lines)

    def times(self) -> npt.NDArray[np.int64]:
        """Return the event times as `EventBatch.times`."""
        return np.frombuffer(self.core.times(), dtype=np.int64)

    def user_ids(self, step: int) -> list[str | None]:
        """Return users as `EventBatch.user_ids`."""
        return self.core.user_ids(step)

    def split(self, partitions: int) -> list[EventBatch]:
        """Return the records of each partition."""
        if partitions == 1:
            return [self]
        self.core.split(partitions)
        return [self._part(partition) for partition in range(partitions)]

    def label(self, label: Callable[[str, ResultPage], None]) -> None:
        """Fill in the relevance levels that are missing."""
        for index in self.core.lacking_levels():
            page = decode_page(self.core.event(index))
            label(normalise_query(page.query), page)
            self.core.put_labelled(index, _encode(page))

    def _decode(self, indexes: Sequence[int]) -> None:
        for index, event in zip(indexes, decode_lines([self.lines[index] for index in indexes]), strict=True):
            if isinstance(event, InvalidEvent):
                self.invalid[index] = event
                user_id = None if event.user_id is None else event.user_id.encode()
                self.core.put_invalid(index, _KINDS[event.kind], user_id)
            else:
                self.core.put_event(index, _encode(event))

    def _part(self, partition: int) -> "NativeEventBatch":
        part = NativeEventBatch.__new__(NativeEventBatch)
        part.lines, part.offsets, part.invalid, part.core = self.lines, self.offsets, self.invalid, self.core
        part.partition = partition
        return part
