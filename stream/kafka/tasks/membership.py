"""Consumer-group membership, maintained by a dedicated polling thread.

The client library joins a group only while its consumer is being polled, and loses rebalances that happen between two
polls. This consumer is therefore polled without a break and reads nothing; another consumer, without a group, reads the
records. So heartbeats continue however long a task works. After an error the membership is closed and another one is
created.
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

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.client_internals import sleep
from prectr.stream.kafka.tasks.assignor import LocalStateAssignor

_POLL_MS: Final = 3_600_000
"""A poll lasts until the consumer is closed: a rebalance that outlives a poll may be lost (kafka-python 3.0.12)."""
_CHECK_INTERVAL: Final = 0.01
_RETRY_BACKOFF: Final = 1.0
_LOG_INTERVAL: Final = 60.0
"""Seconds between two messages on a coordinator that does not answer."""
_REVOKE_TIMEOUT: Final = 5.0
"""Seconds that a rebalance waits for open transactions; later ones fail, because the group has a new generation."""
_MAX_POLL_INTERVAL_MS: Final = 30_000
_CLOSE_TIMEOUT_MS: Final = 3_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Assignment:
    """The tasks that the group has assigned to this process.

    Attributes:
        tasks: their partitions.
        group_metadata: member and generation; the broker rejects a commit with those of an earlier generation.
        version: number of this assignment, from 1; a new one requires the tasks to be reconciled.
        lost_count: how often the assignment was lost without a revocation, because the group excluded this process;
            when it grows, the tasks held before must be closed.
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
        """Start to join the group.

        Args:
            topic: the input topic.
            session_timeout: seconds after which the group reassigns a dead process's tasks.
            local_state: by partition, when the state in this process's folder was last written (ms).
        """
        self._topic = topic
        self._lock = Lock()
        self._assignment: Assignment | None = None
        self._version = self._lost_count = 0
        self._warned_at = float("-inf")
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
        """Return the current assignment; None during a rebalance, when no transaction may be started.

        Raises:
            KafkaError: the membership has failed; close it and join again.
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
        """Leave the group, so that its tasks are reassigned immediately."""
        self._stopped.set()
        with suppress(KafkaError):
            # If this fails, the group removes the member after the session timeout.
            self._consumer.close(timeout_ms=_CLOSE_TIMEOUT_MS)
        self._thread.join()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Store the new assignment; called by the polling thread."""
        numbers = frozenset(partition.partition for partition in assigned)
        # This consumer reads nothing, so it need not fetch committed offsets either.
        self._consumer.pause(*assigned)
        for partition in assigned:
            self._consumer.seek(partition, 0)
        with self._lock:
            self._version += 1
            self._assignment = Assignment(numbers, self._consumer.group_metadata(), self._version, self._lost_count)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Wait until open transactions have ended, while heartbeats continue; called by the polling thread."""
        with self._lock:
            self._assignment = None
        deadline = time.monotonic() + _REVOKE_TIMEOUT
        while not self._idle.is_set() and not self._stopped.is_set() and time.monotonic() < deadline:
            await sleep(_CHECK_INTERVAL)

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Note that other processes may have had the tasks meanwhile; called by the polling thread."""
        with self._lock:
            self._lost_count += 1
            self._assignment = None

    def _warn(self, error: RetriableError) -> None:
        if time.monotonic() - self._warned_at >= _LOG_INTERVAL:
            self._warned_at = time.monotonic()
            _log.warning("%s: the group coordinator does not answer (%s): retrying", self._topic, error)

    def _poll_loop(self) -> None:
        while not self._stopped.is_set():
            try:
                self._consumer.poll(timeout_ms=_POLL_MS)
            except Exception as error:  # noqa: BLE001 (races in the client also raise KeyError and RuntimeError)
                if self._stopped.is_set():
                    return
                if isinstance(error, RetriableError):
                    self._warn(error)
                    self._stopped.wait(_RETRY_BACKOFF)
                    continue
                with self._lock:
                    self._error = error if isinstance(error, KafkaError) else KafkaError(f"membership lost: {error!r}")
                return
