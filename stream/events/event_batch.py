"""Consecutive records of a log or a partition, decoded together: what stage `join` takes at a time."""

from collections.abc import Sequence
from itertools import compress
from typing import Final

import numpy as np
import numpy.typing as npt

from prectr.stream.events.contract import Event, InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of

NO_TIME: Final = -1
"""In place of the time of an invalid event."""


class EventBatch:
    """Records as bytes, decoded, and their offsets."""

    __slots__ = ("events", "lines", "offsets")

    def __init__(
        self, lines: Sequence[bytes], offsets: Sequence[int], events: Sequence[Event | InvalidEvent] | None = None
    ) -> None:
        """Decode the lines, unless their events are given."""
        self.lines = lines
        self.offsets = offsets
        self.events = decode_lines(lines) if events is None else events

    def times(self) -> npt.NDArray[np.int64]:
        """Return the event times in ms, int64[records]; `NO_TIME` for an invalid event."""
        return np.array(
            [NO_TIME if isinstance(event, InvalidEvent) else event.ts for event in self.events], dtype=np.int64
        )

    def user_ids(self, step: int) -> list[str | None]:
        """Return the user of every `step`-th event, from the first one; None for an invalid event."""
        return [None if isinstance(event, InvalidEvent) else event.user_id for event in self.events[::step]]

    def split(self, partitions: int) -> "list[EventBatch]":
        """Return the records of each partition, by their users; a line without a user is of partition 0."""
        if partitions == 1:
            return [self]
        partition_of = partitions_of([event.user_id for event in self.events], partitions)
        batches = []
        for partition in range(partitions):
            selected = [each == partition for each in partition_of]
            batches.append(
                EventBatch(
                    list(compress(self.lines, selected)),
                    list(compress(self.offsets, selected)),
                    list(compress(self.events, selected)),
                )
            )
        return batches
