"""How a task of this process does, for whoever shows or exports it."""

import msgspec

from prectr.state.snapshotter import SnapshotProgress
from prectr.state.store import StoreStats
from prectr.stream.kafka.tasks.task_metrics import DurationBuckets, TaskCounts


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a task of this process does; counts are since it was opened here, but for `emitted` and what says so.

    position: offset of the next record it takes. behind: records to be taken again in silence until it reaches the
    commit. emitted: records put out since the beginning. watermark: ms, or None. lag: records of its partition that it
    has not taken yet; None before the broker has told. replayed: records taken again in silence. restored: seconds
    from its opening until its state had reached the commit; None before. records: taken in micro-batches. batches,
    transactions: how long each took. counts: None until the state has reached the commit.
    """

    stage: str
    partition: int
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
