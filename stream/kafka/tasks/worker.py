"""One process of the live system: runs the tasks that its consumer groups assign to it, until it is stopped."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from threading import Event
from typing import Any, Final

from prectr.state.lock import FolderLock
from prectr.stream.events.contract import ResultPage
from prectr.stream.gc_control import manual_gc
from prectr.stream.kafka.client.end_offsets import EndOffsets
from prectr.stream.kafka.tasks.stages import StageManager, StreamSettings
from prectr.stream.kafka.tasks.task_context import EndOfInput
from prectr.stream.kafka.tasks.task_manager import TaskManager
from prectr.stream.kafka.tasks.task_status import TaskStatus

_STATUS_INTERVAL: Final = 0.2
"""Seconds between two reports of progress."""


def run_stream(
    settings: StreamSettings,
    label: Callable[[str, ResultPage], None],
    *,
    until_end: bool = False,
    flush: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Sequence[TaskStatus]], None] = lambda status: None,
) -> None:
    """Run the stages until `stop` returns true or, with `until_end`, until the group has processed the present log.

    Args:
        label: fills in missing relevance levels of a page.
        until_end: end once the tasks of all processes have processed what the log holds now.
        flush: with `until_end`: the log has ended for good, so close every pending page.
        progress: called with the status of each task of this process.

    Raises:
        PrectrError: the broker rejects a request, or a topic, group or state folder does not fit.
    """
    with ExitStack() as stack:
        lock = FolderLock(settings.state_dir)
        stack.callback(lock.release)
        stack.enter_context(settings.connection.translate_errors())
        end_offsets = EndOffsets(settings.connection)
        stack.callback(end_offsets.close)
        end = EndOfInput(end_offsets.fetch_topic(settings.topics.events), flush) if until_end else None
        cluster = str(settings.connection.call_admin(lambda admin: admin.describe_cluster())["cluster_id"])
        managers = []
        for name in settings.stages:
            manager = StageManager(settings, name, label, end_offsets, cluster)
            stack.callback(manager.close)
            managers.append(manager)
        run_managers(
            [(manager, end) for manager in managers],
            stop,
            lambda: progress([status for manager in managers for status in manager.task_statuses()]),
        )


def run_managers(
    managers: Sequence[tuple[TaskManager[Any], EndOfInput | None]], stop: Callable[[], bool], report: Callable[[], None]
) -> None:
    """Run managers until `stop` returns true, or until the groups of all have processed their input up to its end.

    Args:
        managers: each with the end of its input; None: it has none.
        report: called from time to time.
    """
    # One thread per manager, since all are mostly waiting for records and commits.
    with manual_gc() as collect_garbage, ThreadPoolExecutor(len(managers), thread_name_prefix="stage") as pool:
        shutdown = Event()
        ended = [Event() for _ in managers]
        futures = [
            pool.submit(_run_manager, manager, end, event, shutdown)
            for (manager, end), event in zip(managers, ended, strict=True)
        ]
        try:
            while not stop() and not all(event.is_set() for event in ended):
                failed, _ = wait(futures, timeout=_STATUS_INTERVAL, return_when=FIRST_EXCEPTION)
                report()
                collect_garbage()
                if failed:
                    break
        finally:
            shutdown.set()
        for future in futures:
            future.result()


def _run_manager(manager: TaskManager[Any], end: EndOfInput | None, ended: Event, shutdown: Event) -> None:
    """Run a manager until `shutdown`; set `ended` once its group has processed everything up to `end`.

    It keeps running after that: other processes of the group may still need its heartbeats.
    """
    while not shutdown.is_set():
        busy = manager.run_once()
        if end is not None and not ended.is_set():
            manager.commit_ends(end)
            if not busy and manager.group_has_ended(end):
                ended.set()
