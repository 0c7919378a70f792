"""Reads several inputs in step: an input that is ahead in event time waits for those with unread records.

Without this, catching up on a backlog would read one topic far ahead of another: `join` would close pages before their
clicks arrive. Flink aligns watermarks likewise (FLIP-182), Kafka Streams by record timestamps (KIP-353).
"""

import logging
import time
from collections.abc import Iterable, Mapping
from threading import Condition
from typing import Final, NamedTuple

from kafka import TopicPartition

from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK

_log = logging.getLogger(__name__)


class InputPosition(NamedTuple):
    """How far an input, one partition of a topic, has been read.

    Attributes:
        offset: of the next record that is not processed.
        time: event time there (ms); None if no event is known.
        has_waiting: whether records have been read and not processed.
    """

    offset: int
    time: int | None
    has_waiting: bool = False


class Alignment:
    """The positions of all inputs, in this process and others; thread-safe.

    It never stops all inputs: the one that is furthest behind never waits, an input without unread records does not
    count, and one that has not moved for `stall_timeout` although it has unread records (its broker is down, or a
    producer has left a transaction open) does not count until it moves.
    """

    def __init__(self, max_ahead: float, stall_timeout: float) -> None:
        """Take limits in seconds: of event time, by which an input may be ahead; of waiting for one that stands."""
        self._max_ahead = round(max_ahead * 1000)
        self._stall_timeout: Final = stall_timeout
        self._changed = Condition()
        self._version = 0
        """Grows with every change."""
        self._positions: dict[TopicPartition, InputPosition] = {}
        self._moved_at: dict[TopicPartition, float] = {}
        self._ends: dict[TopicPartition, int] | None = None
        self._own: dict[str, frozenset[TopicPartition]] = {}
        """By topic, the inputs that this process reads."""
        self._stalled: set[TopicPartition] = set()

    def others(self, inputs: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Return those of the inputs that this process does not read."""
        with self._changed:
            return [each for each in inputs if each not in self._own.get(each.topic, ())]

    def set_own(self, topic: str, positions: Mapping[TopicPartition, InputPosition]) -> None:
        """Set the inputs of a topic that this process reads now, with their positions."""
        with self._changed:
            self._own[topic] = frozenset(positions)
            self._update(positions)

    def set_sample(self, ends: Mapping[TopicPartition, int], others: Mapping[TopicPartition, InputPosition]) -> None:
        """Set the end offsets of all inputs, and the positions of those that other processes read."""
        with self._changed:
            if ends != self._ends:
                self._ends = dict(ends)
                self._notify()
            self._update({each: found for each, found in others.items() if each not in self._own.get(each.topic, ())})

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        with self._changed:
            return self._version

    def wait_for_change(self, version: int, timeout: float) -> None:
        """Wait, at most `timeout` seconds, until there is a later version."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != version, timeout)

    def limit(self) -> int:
        """Return the event time (ms) up to which records may be processed now."""
        with self._changed:
            if self._ends is None:
                return MIN_WATERMARK
            unread = {each: self._positions[each] for each in self._ends if self._has_unread(each)}
            standing = {each for each, position in unread.items() if self._stands(each, position)}
            lowest = _lowest(unread[each] for each in unread.keys() - standing)
            for each in standing:
                if _lowest([unread[each]]) < lowest:
                    self._report_stalled(each, unread[each])
            return self._limit_after(lowest) if MIN_WATERMARK < lowest < MAX_WATERMARK else lowest

    def _limit_after(self, lowest: int) -> int:
        """Return the limit for the lowest time: it moves in steps, so that a transaction holds more than a record."""
        limit = lowest + self._max_ahead
        step = self._max_ahead // 2
        return limit - limit % step if step else limit

    def _has_unread(self, each: TopicPartition) -> bool:
        assert self._ends is not None
        position = self._positions.get(each)
        return position is not None and (position.has_waiting or position.offset < self._ends[each])

    def _stands(self, each: TopicPartition, position: InputPosition) -> bool:
        return not position.has_waiting and time.monotonic() - self._moved_at[each] > self._stall_timeout

    def _update(self, positions: Mapping[TopicPartition, InputPosition]) -> None:
        now = time.monotonic()
        for each, position in positions.items():
            if self._positions.get(each) != position:
                self._positions[each] = position
                self._moved_at[each] = now
                self._stalled.discard(each)
                self._notify()

    def _notify(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _report_stalled(self, each: TopicPartition, position: InputPosition) -> None:
        if each not in self._stalled:
            self._stalled.add(each)
            _log.warning(
                "%s partition %d: no record after offset %d for %g s, although there are: the other inputs go on",
                each.topic,
                each.partition,
                position.offset,
                self._stall_timeout,
            )


def _lowest(positions: Iterable[InputPosition]) -> int:
    """Return the lowest event time; MIN_WATERMARK if that of an input is not known yet."""
    return min((MIN_WATERMARK if each.time is None else each.time for each in positions), default=MAX_WATERMARK)
