"""Notices while a system runs that a topic is no longer the one that it began with.

A consumer does not: a topic that was deleted and recreated is read on at the same offset, and new partitions of a topic
whose partitions were assigned by hand are read by nobody.
"""

import time
from typing import Final

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from prectr.state.errors import Remedy, StateError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.client_internals import cached_topic
from prectr.stream.kafka.client.topics import TopicDescription, describe_topic

_MAX_MISSING: Final = 15.0
"""Seconds for which a topic can be missing from the metadata: a broker that starts may not know it yet."""
_MAX_ERROR_TEXT: Final = 300


class TopicWatch:
    """Compares a topic with what it was when the system began to read it.

    Watched consumers ask for metadata every two seconds anyway, so this costs no request of its own.
    """

    def __init__(self, connection: Connection, topic: str, known_id: str = "") -> None:
        """Describe the topic.

        Args:
            known_id: the topic's id when it was first read; empty: that is now.

        Raises:
            StateError: the topic has another id.
            PrectrError: the topic does not exist, or the broker does not answer.
        """
        self._connection = connection
        self._topic = topic
        self.description = describe_topic(connection, topic)
        self._missing_since: float | None = None
        if known_id and known_id != self.description.topic_id:
            raise _recreated(topic)

    def check(self, consumer: KafkaConsumer) -> None:
        """Check the topic as of the metadata that a consumer of it has; cheap enough for every poll.

        Raises:
            StateError: the topic was deleted and recreated, or has got more partitions.
            PrectrError: the topic does not exist any more.
        """
        cached = cached_topic(consumer, self._topic)
        if cached is None:
            now = time.monotonic()
            self._missing_since = self._missing_since or now
            if now - self._missing_since > _MAX_MISSING:
                self._missing_since = None
                self.check_now()
            return
        self._missing_since = None
        self._compare(TopicDescription(cached.partitions, cached.topic_id))

    def check_now(self) -> None:
        """Ask the broker for the topic, and check it; raises as `check`."""
        self._compare(describe_topic(self._connection, self._topic))

    def lost_records_error(self, error: KafkaError) -> StateError:
        """Return the error for a log that no longer holds records that were read; raises as `check`."""
        self.check_now()
        text = " ".join(f"{type(error).__name__} {error}".split())[:_MAX_ERROR_TEXT]
        return StateError(
            f"topic {self._topic}: the log does not have all records that were read, or are next ({text}): retention "
            "has removed them, or a replica without them has become leader",
            Remedy.START_OVER_LIVE,
        )

    def _compare(self, now: TopicDescription) -> None:
        if now.topic_id != self.description.topic_id:
            raise _recreated(self._topic)
        if now.partitions > self.description.partitions:
            raise StateError(
                f"topic {self._topic} has {now.partitions} partitions, and had {self.description.partitions} when this "
                "process began: keys have moved to other partitions than their earlier records, and the new partitions "
                "are read by nobody. The number of partitions of a running system cannot be changed",
                Remedy.START_OVER_LIVE,
            )


def _recreated(topic: str) -> StateError:
    return StateError(
        f"topic {topic} was deleted and recreated: its offsets start from 0 again, and what is committed and stored "
        "belongs to the topic that is gone",
        Remedy.START_OVER_LIVE,
    )
