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
_LOOK_EVERY: Final = 0.01
_TRY_AGAIN: Final = 1.0
_QUIET_SECONDS: Final = 5.0
"""How long a rebalance waits for transactions that are under way; beyond, they fail, since the group has moved on."""
_MAX_POLL_INTERVAL_MS: Final = 30_000
_CLOSE_MS: Final = 3_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """What the group has given to this process.

    tasks: their numbers. group: what fences us where the group has moved on. number: of the share, from 1; another
    one asks to look at the tasks again. anew: how often the tasks of before had to be dropped as they are, because
    the group had gone on without us.
    """

    tasks: frozenset[int]
    group: Any
    number: int
    anew: int


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
        self._share: Share | None = None
        self._number = self._anew = 0
        self._quiet = Event()
        self._quiet.set()
        self._failed: KafkaError | None = None
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
        self._thread = Thread(target=self._keep, name=f"membership-{topic}", daemon=True)
        self._thread.start()

    def share(self) -> Share | None:
        """What is ours now; None while the group is being shared out anew, when nothing may be begun.

        Raises:
            KafkaError: the membership is no more; another may be.
        """
        with self._lock:
            if self._failed is not None:
                raise self._failed
            if self._share is None:
                self._quiet.set()
            else:
                self._quiet.clear()
            return self._share

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        self._stopped.set()
        with suppress(KafkaError):
            # Where this fails, the group learns by the session timeout that we have gone.
            self._consumer.close(timeout_ms=_CLOSE_MS)
        self._thread.join()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Called by the client's own thread when the group has been shared out."""
        numbers = frozenset(partition.partition for partition in assigned)
        # Nothing is to be read by this consumer, so it need not ask either where to begin.
        self._consumer.pause(*assigned)
        for partition in assigned:
            self._consumer.seek(partition, 0)
        with self._lock:
            self._number += 1
            self._share = Share(numbers, self._consumer.group_metadata(), self._number, self._anew)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Called by the client's own thread: let what is under way end first, while heartbeats go on."""
        with self._lock:
            self._share = None
        until = time.monotonic() + _QUIET_SECONDS
        while not self._quiet.is_set() and not self._stopped.is_set() and time.monotonic() < until:
            await KernelEvent("_sleep", _LOOK_EVERY)

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Called by the client's own thread: others have had the tasks meanwhile."""
        with self._lock:
            self._anew += 1
            self._share = None

    def _keep(self) -> None:
        while not self._stopped.is_set():
            try:
                self._consumer.poll(timeout_ms=_POLL_MS)
            except Exception as error:  # noqa: BLE001 (the client lets KeyError and RuntimeError out of its races, too)
                if self._stopped.is_set():
                    return
                if isinstance(error, RetriableError):
                    _log.warning("%s: the group does not answer (%s): trying on", self._topic, error)
                    self._stopped.wait(_TRY_AGAIN)
                    continue
                with self._lock:
                    self._failed = error if isinstance(error, KafkaError) else KafkaError(f"membership lost: {error!r}")
                return
