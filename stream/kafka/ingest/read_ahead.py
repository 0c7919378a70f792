"""Records of one input that have been read and wait for the other inputs."""

from collections.abc import Sequence
from statistics import median_low
from typing import Final

from prectr.stream.kafka.ingest.record_mapper import MappedRecord

_MAX_RECORDS: Final = 8_192
_MAX_BYTES: Final = 8 << 20
_FOLLOWERS: Final = 5


class ReadAhead:
    """A queue of mapped records, in offset order.

    A record's time is that of its first event, but at most the median of its own and the next four: a single record
    that is far ahead of its neighbours by a wrong clock does not wait, and holds nothing back. A record without events
    has no time and never waits.
    """

    def __init__(self) -> None:
        self._records: list[MappedRecord] = []
        self._times: list[int | None] = []
        self._bytes = 0
        self._last_taken: int | None = None

    @property
    def first_offset(self) -> int | None:
        """The offset of the first record; None if there is none."""
        return self._records[0].record.offset if self._records else None

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read for now."""
        return len(self._records) >= _MAX_RECORDS or self._bytes >= _MAX_BYTES

    def add(self, records: Sequence[MappedRecord]) -> None:
        """Append records."""
        self._records += records
        self._times += [record.time for record in records]
        self._bytes += sum(record.size for record in records)

    def time(self) -> int | None:
        """Return the time of the first record that has one, else that of the last one taken; None if none had one."""
        waiting = (time for index in range(len(self._times)) if (time := self._time(index)) is not None)
        return next(waiting, self._last_taken)

    def take(self, limit: int) -> list[MappedRecord]:
        """Remove and return the first records, up to one whose time is after `limit` (ms)."""
        count = 0
        for own in self._times:
            time = own if own is None or own <= limit else self._time(count)
            if time is not None:
                if time > limit:
                    break
                self._last_taken = time
            count += 1
        taken, self._records, self._times = self._records[:count], self._records[count:], self._times[count:]
        self._bytes -= sum(record.size for record in taken)
        return taken

    def _time(self, index: int) -> int | None:
        own = self._times[index]
        if own is None:
            return None
        times = [time for time in self._times[index : index + _FOLLOWERS] if time is not None]
        return min(own, median_low(times))
