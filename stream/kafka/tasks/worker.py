"""One process of the live system: it runs the tasks that its consumer groups give it, until it is stopped."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from threading import Event
from typing import Final

from prectr.state.lock import FolderLock
from prectr.stream.events.contract import Impression
from prectr.stream.kafka.client.end_offsets import LogEnds
from prectr.stream.kafka.tasks.task_manager import Stage, StreamSettings
from prectr.stream.kafka.tasks.task_status import TaskFacts
from prectr.stream.replay.gc_control import collected_by_hand

_LOOK_EVERY: Final = 0.2
"""Seconds between two looks at how the stages do."""


def run_stream(
    settings: StreamSettings,
    label: Callable[[str, Impression], None],
    *,
    until_end: bool = False,
    flush: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Sequence[TaskFacts]], None] = lambda facts: None,
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
        stack.enter_context(settings.connection.errors())
        log_ends = LogEnds(settings.connection)
        stack.callback(log_ends.close)
        ends = log_ends.of_topic(settings.topics.events) if until_end else []
        cluster = str(settings.connection.ask(lambda admin: admin.describe_cluster())["cluster_id"])
        stages = []
        for name in settings.stages:
            stage = Stage(settings, name, label, log_ends, cluster)
            stack.callback(stage.close)
            stages.append(stage)
        # A thread each, since both are mostly waiting: for records, and for commits.
        with collected_by_hand() as tidy, ThreadPoolExecutor(len(stages), thread_name_prefix="stage") as pool:
            halt = Event()
            ended = {stage.name: Event() for stage in stages}
            running = [
                pool.submit(_run, stage, ends if until_end else None, flush, ended[stage.name], halt)
                for stage in stages
            ]
            try:
                while not stop() and not all(event.is_set() for event in ended.values()):
                    failed, _ = wait(running, timeout=_LOOK_EVERY, return_when=FIRST_EXCEPTION)
                    progress([facts for stage in stages for facts in stage.facts()])
                    tidy()
                    if failed:
                        break
            finally:
                halt.set()
            for future in running:
                future.result()


def _run(stage: Stage, ends: list[int] | None, flush: bool, ended: Event, halt: Event) -> None:
    """Run a stage until `halt`; with `ends`, set `ended` when the group has read to them and put out everything.

    It is polled on even then, or it would hold up the group that others may still need.
    """
    while not halt.is_set():
        busy = stage.work()
        if ends is not None and not ended.is_set():
            if stage.name == "sessions":
                stage.end(ends, flush=flush)
            if not busy and stage.ended(ends, flush=flush):
                ended.set()
