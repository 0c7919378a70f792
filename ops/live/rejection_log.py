"""Logs what the `join` tasks of a process rejected or could not join: a line a minute, from counts that there are."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from prectr.stream.join.outcomes import ClickOutcomes
from prectr.stream.kafka.tasks.task_status import TaskStatus

_LOG_INTERVAL: Final = 60.0
_OUTCOMES: Final = ("orphan", "foreign", "late")
_log = logging.getLogger(__name__)


class RejectionLog:
    """Compares the counts of the tasks with those of the last line.

    A task's counts of clicks go on from the process that had it before, so those of its first report are no news.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._clock = clock
        self._logged_at = float("-inf")
        self._latest: dict[int, Counter[str]] = {}
        self._unlogged: Counter[str] = Counter()
        self._example = ""

    def update(self, tasks: Sequence[TaskStatus]) -> None:
        """Take the counts of the tasks as of now, and log if there is news and the last line is a minute old."""
        present = {task.partition: task for task in tasks if task.stage == "join"}
        for partition in self._latest.keys() - present.keys():
            del self._latest[partition]
        for partition, task in present.items():
            if task.counts is None or task.counts.outcomes is None:
                continue
            counts = _counts(task.counts.dead_letters, task.counts.outcomes.clicks)
            latest = self._latest.get(partition)
            if latest is None:
                # Dead letters are counted from the opening of the task.
                latest = Counter({name: count for name, count in counts.items() if name in _OUTCOMES})
            # A task that was opened again counts its dead letters anew.
            news = counts - Counter({name: count for name, count in latest.items() if count <= counts[name]})
            self._example = self._example or (task.counts.rejection_example if news else "")
            self._latest[partition] = counts
            self._unlogged += news
        now = self._clock()
        if self._unlogged and now - self._logged_at >= _LOG_INTERVAL:
            self._logged_at = now
            _log.warning("%s", self._line())
            self._unlogged.clear()
            self._example = ""

    def _line(self) -> str:
        rejected = [f"{count:,} {name}" for name, count in self._unlogged.most_common() if name not in _OUTCOMES]
        clicks = [f"{self._unlogged[name]:,} {name}" for name in _OUTCOMES if self._unlogged[name]]
        parts = []
        if rejected:
            example = f" (such as {self._example})" if self._example else ""
            parts.append(f"dead letters: {', '.join(rejected)}{example}; `prectr dlq list` lists them")
        if clicks:
            parts.append(f"clicks not joined: {', '.join(clicks)}")
        return "since the last such line: " + "; ".join(parts)


def _counts(dead_letters: Mapping[str, int], clicks: ClickOutcomes) -> Counter[str]:
    counts = Counter(dead_letters)
    counts.update(orphan=clicks.orphan, foreign=clicks.foreign, late=clicks.late)
    return counts
