"""The embedded runner's tasks: both stages in one process, no broker, one RocksDB a task.

Lines go in in the order of the log, examples come out in the one order. What a step puts out depends on the lines
alone, not on how they are cut into steps.
"""

from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from prectr.state.store import Store, StoreOptions
from prectr.stream.aggregate.operator import Queries
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Event, Impression, Rejected
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.join.operator import CHUNK_LINES, MicroBatch, Refused, Sessions
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.ordering.ordered_merge import Merge
from prectr.stream.records import Activity, Example

STORE_OPTIONS = StoreOptions(write_ahead_log=False, write_buffer=8 << 20, block_cache=16 << 20)
"""A crash goes back to the last cut, which flushes the stores: a write-ahead log would be written for nobody. Buffers
are small, since one process holds the stores of all tasks."""
COMMIT_LINES = 32_768
"""Lines between two writes of the state: enough that a user's entry is seldom written twice for one visit."""


class Step(NamedTuple):
    """What came out: examples in the one order, none to follow up to `line` (ms); and the refused records."""

    examples: list[Example]
    line: int
    refused: list[Refused]


class EmbeddedTasks:
    """`partitions` tasks of each stage over stores in `folder`, and the merge that the trainer reads behind."""

    def __init__(self, folder: Path, config: PipelineConfig, label: Callable[[str, Impression], None]) -> None:
        """Take up the tasks where the stores in `folder` left them."""
        self._partitions = config.partitions
        self._stores = [
            Store(folder / f"{stage}-{task}", STORE_OPTIONS)
            for stage in ("sessions", "queries")
            for task in range(self._partitions)
        ]
        session_stores, query_stores = self._stores[: self._partitions], self._stores[self._partitions :]
        self._sessions = [Sessions(config, store, label) for store in session_stores]
        self._queries = [Queries(config, store, self._partitions) for store in query_stores]
        self._examples: Merge[Example] = Merge(self._partitions)
        self._uncommitted = 0

    @property
    def outcomes(self) -> Outcomes:
        """How every record ended, over all tasks."""
        return sum((task.outcomes for task in self._sessions), Outcomes())

    @property
    def watermark(self) -> int:
        """The lowest watermark of all `sessions` tasks."""
        return min(task.watermark for task in self._sessions)

    def watermarks(self) -> dict[str, list[int]]:
        """The watermark of every task, by stage and partition (ms)."""
        return {
            "sessions": [task.watermark for task in self._sessions],
            "queries": [task.watermark for task in self._queries],
        }

    def step(self, lines: Sequence[bytes], first_place: int) -> list[Step]:
        """Take consecutive lines, the first of them at `first_place`; usually one step, more after a quiet partition.

        The state is in memory in part: `checkpoint` writes it all.
        """
        refused: list[Refused] = []
        closed: list[list[Activity]] = [[] for _ in self._sessions]
        for start in range(0, len(lines), CHUNK_LINES):
            chunk = lines[start : start + CHUNK_LINES]
            position = first_place + start + len(chunk)
            for source, batch in enumerate(self._by_partition(decode_lines(chunk), chunk, first_place + start)):
                activities, refused_here = self._sessions[source].process(batch, position)
                closed[source] += activities
                refused += refused_here
        for source, task in enumerate(self._sessions):
            self._send(source, closed[source], task.watermark)
        self._uncommitted += len(lines)
        return self._drain(refused)

    def flush(self) -> list[Step]:
        """The log has ended for good: close every open page."""
        for source, task in enumerate(self._sessions):
            self._send(source, task.flush(), task.watermark)
        return self.end()

    def end(self) -> list[Step]:
        """Every source has been read to its end, so that all that has closed is due.

        What came after would be out of order: only a state from before this call can go on.
        """
        for source in range(self._partitions):
            for task in self._queries:
                task.end(source)
        return self._drain([])

    def checkpoint(self, folder: Path) -> None:
        """Write consistent copies of all stores into `folder`."""
        self._commit()
        folder.mkdir(parents=True)
        for store in self._stores:
            store.checkpoint(folder / store.path.name)

    def close(self) -> None:
        """Close the stores."""
        for store in self._stores:
            store.close()

    def _by_partition(
        self, events: Sequence[Event | Rejected], lines: Sequence[bytes], first_place: int
    ) -> list[MicroBatch]:
        if self._partitions == 1:
            return [MicroBatch(events, lines, range(first_place, first_place + len(lines)))]
        partitions = partitions_of([event.user_id for event in events], self._partitions)
        places = range(first_place, first_place + len(lines))
        batches = []
        for wanted in range(self._partitions):
            here = [partition == wanted for partition in partitions]
            batches.append(
                MicroBatch(list(compress(events, here)), list(compress(lines, here)), list(compress(places, here)))
            )
        return batches

    def _send(self, source: int, activities: list[Activity], watermark: int) -> None:
        if self._partitions == 1:
            self._queries[0].add(source, activities, watermark)
            return
        frames: list[list[Activity]] = [[] for _ in range(self._partitions)]
        partitions = partitions_of([activity.query for activity in activities], self._partitions)
        for partition, activity in zip(partitions, activities, strict=True):
            frames[partition].append(activity)
        for task, frame in zip(self._queries, frames, strict=True):
            task.add(source, frame, watermark)

    def _drain(self, refused: list[Refused]) -> list[Step]:
        """Run the `queries` tasks until nothing is due."""
        steps = []
        while True:
            for source, task in enumerate(self._queries):
                self._examples.add(source, task.process(), task.watermark)
            examples, line = self._examples.release()
            steps.append(Step(examples, line, refused))
            refused = []
            behind = any(task.behind for task in self._queries)
            if behind or self._uncommitted >= COMMIT_LINES:
                self._commit()
            if not behind:
                return steps

    def _commit(self) -> None:
        """Write what has changed, a batch a task."""
        changes = [task.take_changes() for task in self._sessions] + [task.take_changes() for task in self._queries]
        for store, changed in zip(self._stores, changes, strict=True):
            store.write(changed)
        self._uncommitted = 0
