"""A task's state and progress, for metrics and status displays."""

from enum import Enum

import msgspec

from prectr.state.snapshotter import SnapshotProgress
from prectr.state.store import StoreStats
from prectr.stream.kafka.tasks.task_metrics import DurationBuckets, TaskCounts


class TaskState(Enum):
    """Lifecycle of a task, as in Kafka Streams.

    CREATED: not initialized. RESTORING: reprocesses committed records to rebuild its state, without output.
    RUNNING: processes new records. CLOSED: its store and producer are closed.
    """

    CREATED = "created"
    RESTORING = "restoring"
    RUNNING = "running"
    CLOSED = "closed"


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """State and progress of a task. Counts start when this process opens the task, unless stated otherwise.

    Attributes:
        next_offset: offset of the next record to process.
        restore_remaining: committed offsets that are still to be reprocessed.
        emitted: records emitted since the group's first.
        watermark: event time, ms; None before the first event.
        lag: records of the partition that have not been processed; None before the broker reported its end.
        restored_records: records reprocessed.
        restore_seconds: seconds from opening until the state reached the commit; None before.
        processed_records: new records processed.
        batch_durations: of processing a batch of records, its commit included.
        commit_durations: of transactions.
        counts: None until the state has reached the commit.
    """

    stage: str
    partition: int
    state: TaskState = TaskState.RUNNING
    next_offset: int
    restore_remaining: int
    emitted: int
    watermark: int | None
    snapshots: SnapshotProgress | None
    lag: int | None = None
    restored_records: int = 0
    restore_seconds: float | None = None
    processed_records: int = 0
    batch_durations: DurationBuckets = DurationBuckets()
    commit_durations: DurationBuckets = DurationBuckets()
    counts: TaskCounts | None = None
    store_stats: StoreStats | None = None
