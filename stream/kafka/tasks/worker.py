"""One process of the live system: it runs the tasks that its consumer groups give it, until it is stopped."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from threading import Event
from typing import Final

from prectr.state.lock import FolderLock
from prectr.stream.events.contract import ResultPage
from prectr.stream.gc_control import manual_gc
from prectr.stream.kafka.client.end_offsets import EndOffsets
from prectr.stream.kafka.tasks.task_manager import StreamSettings, TaskManager
from prectr.stream.kafka.tasks.task_status import TaskStatus

_STATUS_INTERVAL: Final = 0.2
"""Seconds between two looks at how the stages do."""


def run_stream(
    settings: StreamSettings,
    label: Callable[[str, ResultPage], None],
    *,
    until_end: bool = False,
    flush: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Sequence[TaskStatus]], None] = lambda status: None,
) -> None:
    """Run the stages until `stop` says so or, with `until_end`, until all that is there now has gone through.

    That is for the whole group: no process ends before the tasks of all have. flush: with `until_end`, the log has
    ended for good, so close every open page. progress: told how each task of this process does.

    Raises:
        PrectrError: the broker, a topic or a state folder does not allow it.
    """
    with ExitStack() as stack:
        lock = FolderLock(settings.state_dir)
        stack.callback(lock.release)
        stack.enter_context(settings.connection.translate_errors())
        end_offsets = EndOffsets(settings.connection)
        stack.callback(end_offsets.close)
        ends = end_offsets.fetch_topic(settings.topics.events) if until_end else []
        cluster = str(settings.connection.call_admin(lambda admin: admin.describe_cluster())["cluster_id"])
        managers = []
        for name in settings.stages:
            manager = TaskManager(settings, name, label, end_offsets, cluster)
            stack.callback(manager.close)
            managers.append(manager)
        # A thread each, since both are mostly waiting: for records, and for commits.
        with manual_gc() as collect_garbage, ThreadPoolExecutor(len(managers), thread_name_prefix="stage") as pool:
            shutdown = Event()
            ended = {manager.stage: Event() for manager in managers}
            futures = [
                pool.submit(_run_manager, manager, ends if until_end else None, flush, ended[manager.stage], shutdown)
                for manager in managers
            ]
            try:
                while not stop() and not all(event.is_set() for event in ended.values()):
                    failed, _ = wait(futures, timeout=_STATUS_INTERVAL, return_when=FIRST_EXCEPTION)
                    progress([status for manager in managers for status in manager.task_statuses()])
                    collect_garbage()
                    if failed:
                        break
            finally:
                shutdown.set()
            for future in futures:
                future.result()


def _run_manager(manager: TaskManager, ends: list[int] | None, flush: bool, ended: Event, shutdown: Event) -> None:
    """Run a stage until `halt`; with `ends`, set `ended` when the group has read to them and put out everything.

    It is polled on even then, or it would hold up the group that others may still need.
    """
    while not shutdown.is_set():
        busy = manager.run_once()
        if ends is not None and not ended.is_set():
            if manager.stage == "join":
                manager.commit_ends(ends, flush=flush)
            if not busy and manager.group_has_ended(ends, flush=flush):
                ended.set()
