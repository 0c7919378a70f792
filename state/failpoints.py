"""Named points in the program at which a test can stop or kill it."""

from collections.abc import Callable
from enum import StrEnum


class Failpoint(StrEnum):
    """Every point. The value is the name by which the crash tests refer to it."""

    AFTER_PRODUCE = "after_produce"
    """A task's outputs are in an open transaction, its offset is not."""
    BEFORE_COMMIT = "before_commit"
    """Outputs and offset are in the transaction, which is not committed."""
    AFTER_COMMIT = "after_commit"
    """The transaction is committed, the task's state is not written."""
    AFTER_WRITE = "after_write"
    """The task's state is written."""
    REBALANCE = "rebalance"
    """Tasks are being closed because their partitions were revoked."""
    SNAPSHOT = "snapshot"
    """A snapshot's files are uploaded, its manifest is not."""
    RESTORE = "restore"
    """Some files of a snapshot are downloaded."""
    CHECKPOINT = "checkpoint"
    """A run's checkpoint is written to its staging folder and not renamed yet."""
    PUBLISHED = "published"
    """Quality windows are on the topic, their acknowledgement is not recorded."""
    RETRY_BEFORE_COMMIT = "retry_before_commit"
    """Retried dead letters are in an open transaction."""
    RETRY_AFTER_COMMIT = "retry_after_commit"
    """The transaction of retried dead letters is committed."""


_hook: Callable[[Failpoint], None] | None = None


def failpoint(point: Failpoint) -> None:
    """Pass a point: calls the hook that a test has set, and does nothing otherwise."""
    if _hook is not None:
        _hook(point)


def set_failpoint_hook(hook: Callable[[Failpoint], None] | None) -> None:
    """Call `hook` at every point from now on; None removes the hook."""
    global _hook  # noqa: PLW0603 (one process, one hook)
    _hook = hook
