"""Notices events in another partition than that of their user: a producer with another key or partitioner.

The clicks of such a user are read by another task than the user's pages, and become orphans.
"""

import logging
import time
from typing import Final

from prectr.stream.events.event_batch import EventBatch
from prectr.stream.events.partition import partitions_of

_EVENTS_BETWEEN: Final = 64
"""One event in so many is looked at: hashing the user of each would cost as much as joining it."""
_LOG_INTERVAL: Final = 60.0
_log = logging.getLogger(__name__)


class MisplacedEvents:
    """Looks at some of the events of a partition. count: how many of them belong to another one."""

    def __init__(self, topic: str, partition: int, partitions: int) -> None:
        """Begin with none; partitions: how many the topic has."""
        self.count = 0
        self._topic, self._partition = topic, partition
        self._partitions = partitions
        self._logged_at = float("-inf")

    def look_at(self, batch: EventBatch) -> None:
        """Look at some of these consecutive events, the first of them included."""
        looked_at = [
            (user_id, offset)
            for user_id, offset in zip(batch.user_ids(_EVENTS_BETWEEN), batch.offsets[::_EVENTS_BETWEEN], strict=True)
            if user_id is not None
        ]
        expected = partitions_of([user for user, _ in looked_at], self._partitions)
        for (_, offset), partition in zip(looked_at, expected, strict=True):
            if partition == self._partition:
                continue
            self.count += 1
            if time.monotonic() - self._logged_at >= _LOG_INTERVAL:
                self._logged_at = time.monotonic()
                _log.warning(
                    "%s partition %d offset %d: by its user this event belongs to partition %d, so clicks and pages of "
                    "the user do not meet: produce with the user's id as key and Kafka's default partitioner, murmur2, "
                    "or write to a topic of its own and let `prectr ingest` key its events",
                    self._topic,
                    self._partition,
                    offset,
                    partition,
                )
