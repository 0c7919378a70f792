"""A process's place in a consumer group, kept by a thread that does nothing else.

The client library joins a group only while its consumer is being polled, and loses what comes to pass between two
polls. So this consumer is polled without a break and reads nothing; the records are read by another one, which has
no group. However long a task works, the group hears of this process. Whoever doubts its membership closes it and
makes another.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import KafkaError, RetriableError
from kafka.net.selector import KernelEvent

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.tasks.assignor import LocalStateAssignor

_POLL_MS: Final = 3_600_000
"""One poll lasts until the consumer is closed: a rebalance that outlives a poll may be lost (kafka-python 3.0.12)."""
_CHECK_INTERVAL: Final = 0.01
_RETRY_BACKOFF: Final = 1.0
_REVOKE_TIMEOUT: Final = 5.0
"""How long a rebalance waits for transactions that are under way; beyond, they fail, since the group has moved on."""
_MAX_POLL_INTERVAL_MS: Final = 30_000
_CLOSE_TIMEOUT_MS: Final = 3_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the group has given to this process.

    tasks: their numbers. group: what fences us where the group has moved on. number: of the share, from 1; another
    one asks to look at the tasks again. anew: how often the tasks of before had to be dropped as they are, because
    the group had gone on without us.
    """

    tasks: frozenset[int]
    group_metadata: Any
    version: int
    lost_count: int


class Membership(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Membership in the group that shares the tasks over `topic`."""

    def __init__(
        self,
        connection: Connection,
        group: str,
        topic: str,
        partitions: int,
        *,
        session_timeout: float,
        local_state: Callable[[], Mapping[int, int]],
    ) -> None:
        """Begin to join. session_timeout: seconds after which the tasks of a dead process move on."""
        self._topic = topic
        self._lock = Lock()
        self._assignment: Assignment | None = None
        self._version = self._lost_count = 0
        self._idle = Event()
        self._idle.set()
        self._error: KafkaError | None = None
        self._stopped = Event()
        self._consumer: KafkaConsumer = connection.consumer(
            group_id=group,
            session_timeout_ms=round(session_timeout * 1000),
            heartbeat_interval_ms=round(session_timeout * 250),
            max_poll_interval_ms=max(_MAX_POLL_INTERVAL_MS, round(session_timeout * 3000)),
            partition_assignment_strategy=[LocalStateAssignor(partitions, local_state)],
            max_partition_fetch_bytes=1,
        )
        self._consumer.subscribe([topic], listener=self)
        self._thread = Thread(target=self._poll_loop, name=f"membership-{topic}", daemon=True)
        self._thread.start()

    def assignment(self) -> Assignment | None:
        """What is ours now; None while the group is being shared out anew, when nothing may be begun.

        Raises:
            KafkaError: the membership is no more; another may be.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._assignment is None:
                self._idle.set()
            else:
                self._idle.clear()
            return self._assignment

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        self._stopped.set()
        with suppress(KafkaError):
            # Where this fails, the group learns by the session timeout that we have gone.
            self._consumer.close(timeout_ms=_CLOSE_TIMEOUT_MS)
        self._thread.join()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Called by the client's own thread when the group has been shared out."""
        numbers = frozenset(partition.partition for partition in assigned)
        # Nothing is to be read by this consumer, so it need not ask either where to begin.
        self._consumer.pause(*assigned)
        for partition in assigned:
            self._consumer.seek(partition, 0)
        with self._lock:
            self._version += 1
            self._assignment = Assignment(numbers, self._consumer.group_metadata(), self._version, self._lost_count)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Called by the client's own thread: let what is under way end first, while heartbeats go on."""
        with self._lock:
            self._assignment = None
        deadline = time.monotonic() + _REVOKE_TIMEOUT
        while not self._idle.is_set() and not self._stopped.is_set() and time.monotonic() < deadline:
            await KernelEvent("_sleep", _CHECK_INTERVAL)

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Called by the client's own thread: others have had the tasks meanwhile."""
        with self._lock:
            self._lost_count += 1
            self._assignment = None

    def _poll_loop(self) -> None:
        while not self._stopped.is_set():
            try:
                self._consumer.poll(timeout_ms=_POLL_MS)
            except Exception as error:  # noqa: BLE001 (the client lets KeyError and RuntimeError out of its races, too)
                if self._stopped.is_set():
                    return
                if isinstance(error, RetriableError):
                    _log.warning("%s: the group does not answer (%s): trying on", self._topic, error)
                    self._stopped.wait(_RETRY_BACKOFF)
                    continue
                with self._lock:
                    self._error = error if isinstance(error, KafkaError) else KafkaError(f"membership lost: {error!r}")
                return
