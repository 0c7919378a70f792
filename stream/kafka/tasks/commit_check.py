"""Checks that a task's store, its committed offset and the log fit together, before the task processes anything."""

from pathlib import Path

from prectr.state.errors import Remedy, StateError
from prectr.stream.kafka.client.end_offsets import OffsetRange, offset_out_of_range
from prectr.stream.kafka.tasks.task_context import TaskContext
from prectr.stream.kafka.transactions.committed_offsets import CommitMetadata


def check_commit(
    context: TaskContext,
    topic: str,
    path: Path,
    next_offset: int,
    committed: tuple[int, CommitMetadata] | None,
    log_range: OffsetRange,
) -> None:
    """Check that state and commit fit, and that the log holds everything from the state on.

    Args:
        topic: the input topic.
        path: folder of the store.
        next_offset: offset of the first record that the store has not processed; 0 for an empty store.
        committed: the group's offset with its metadata; None if nothing was ever committed.
        log_range: offsets that the input partition holds.

    Raises:
        StateError: they do not fit together.
    """
    where, group = f"{topic} partition {context.partition}", context.group
    if committed is None and next_offset > 0:
        raise StateError(
            f"{path}: the state is at offset {next_offset} of {where}, but group {group} has committed nothing: its "
            "offsets have expired or were deleted, or another group wrote the state",
            Remedy.RESTORE_OFFSETS,
            Remedy.WRITER_GROUP_PREFIX,
            Remedy.START_OVER_LIVE,
        )
    if committed is None:
        return
    offset, metadata = committed
    if metadata.topic_id != context.topic_id:
        raise StateError(
            f"group {group} has committed offset {offset} of an earlier {where}, which was deleted and recreated",
            Remedy.START_OVER_LIVE,
        )
    check_settings(context, topic, committed)
    if next_offset > offset:
        raise StateError(
            f"{path}: the state is at offset {next_offset} of {where}, ahead of the commit of group {group} at "
            f"{offset}: another group wrote it",
            Remedy.WRITER_GROUP_PREFIX,
            Remedy.OTHER_STATE_DIR,
        )
    _check_log(where, group, offset, max(next_offset, metadata.start_offset), log_range)


def check_settings(context: TaskContext, topic: str, committed: tuple[int, CommitMetadata] | None) -> None:
    """Check that the group has committed with the settings of this process.

    Raises:
        StateError: it has committed with others.
    """
    if committed is None or committed[1].settings in ("", context.settings_digest):
        return
    raise StateError(
        f"{topic} partition {context.partition}: group {context.group} has committed with other settings (their digest "
        f"is {committed[1].settings}, that of this process {context.settings_digest}): all processes of a system must "
        "have the same, or a page's result would depend on which of them handled it",
        Remedy.ORIGINAL_SETTINGS,
        Remedy.START_OVER_LIVE,
    )


def _check_log(where: str, group: str, offset: int, first_needed: int, log_range: OffsetRange) -> None:
    if log_range.end < offset:
        raise StateError(
            f"{where}: group {group} has committed offset {offset}, but the log ends at {log_range.end}: the broker "
            "has lost records",
            Remedy.START_OVER_LIVE,
        )
    if first_needed < log_range.start:
        raise offset_out_of_range(where, first_needed, log_range.start, Remedy.NEWER_STATE_DIR)
