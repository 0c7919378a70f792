"""One process of the live system: it runs the tasks that its consumer groups give it, until it is stopped."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

from state.lock import FolderLock
from stream.events import Impression
from stream.kafka.ends import LogEnds
from stream.kafka.stage import Stage, StreamSettings

_POLL_MS: Final = 50
_BUSY_POLL_MS: Final = 5


def run_stream(
    settings: StreamSettings,
    label: Callable[[str, Impression], None],
    *,
    until_end: bool = False,
    flush: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Mapping[str, int]], None] = lambda emitted: None,
) -> None:
    """Run the stages until `stop` says so or, with `until_end`, until all that is there now has gone through.

    That is for the whole group: no process ends before the tasks of all have. flush: with `until_end`, the log has
    ended for good, so close every open page. progress: told the records put out by each task of this process.

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
        busy = False
        while not stop():
            worked = False
            for stage in stages:
                worked |= stage.work(_BUSY_POLL_MS if busy or worked else _POLL_MS)
                if until_end and stage.name == "sessions":
                    stage.end(ends, flush=flush)
            busy = worked
            progress(
                {
                    f"{stage.name}-{number}": task.said.emitted
                    for stage in stages
                    for number, task in stage.tasks.items()
                }
            )
            if until_end and not busy and all(stage.ended(ends, flush=flush) for stage in stages):
                return
