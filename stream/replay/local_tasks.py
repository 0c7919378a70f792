"""The embedded runner's tasks: both stages in one process, without a broker, one RocksDB per task.

Input lines are in the order of the log, examples in the total order. The output depends on the lines alone, not on how
they are grouped into steps.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from prectr.state.store import Store, StoreOptions
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import ResultPage
from prectr.stream.events.event_batch import EventBatch
from prectr.stream.events.partition import partitions_of
from prectr.stream.join.operator import CHUNK_LINES, RejectedRecord
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.ordering.ordered_merge import OrderedMerge
from prectr.stream.ordering.released_batch import ReleasedBatch
from prectr.stream.records import Example, JoinedPage
from prectr.stream.stages import decode_batch, open_aggregate, open_join

STORE_OPTIONS = StoreOptions(write_ahead_log=False, write_buffer=8 << 20, block_cache=16 << 20)
"""A crash rolls back to the last checkpoint, which flushes the stores, so no write-ahead log is needed. Buffers are
small, since one process has the stores of all tasks open."""
COMMIT_LINES = 32_768
"""Lines between two writes of the state: enough that a user's entry is rarely written twice for one visit."""


class EmbeddedTasks:
    """`partitions` tasks of each stage over stores in `folder`, and the merge of their examples."""

    def __init__(
        self,
        folder: Path,
        config: PipelineConfig,
        label: Callable[[str, ResultPage], None],
        on_decoded: Callable[[EventBatch], None] = lambda batch: None,
    ) -> None:
        """Open the tasks with the state of the stores in `folder`.

        Args:
            on_decoded: called with the events of every few hundred lines.
        """
        self._partitions = config.partitions
        self._stores = [
            Store(folder / f"{stage}-{task}", STORE_OPTIONS)
            for stage in ("join", "aggregate")
            for task in range(self._partitions)
        ]
        join_stores, aggregate_stores = self._stores[: self._partitions], self._stores[self._partitions :]
        self._joins = [open_join(config, store, label) for store in join_stores]
        self._aggregates = [open_aggregate(config, store, self._partitions) for store in aggregate_stores]
        self._example_merge: OrderedMerge[Example] = OrderedMerge(self._partitions)
        self._on_decoded = on_decoded
        self._uncommitted = 0

    @property
    def outcomes(self) -> Outcomes:
        """Outcome counts of all records, over all tasks."""
        return sum((task.outcomes for task in self._joins), Outcomes())

    @property
    def watermark(self) -> int:
        """The lowest watermark of all `join` tasks (ms)."""
        return min(task.watermark for task in self._joins)

    def watermarks(self) -> dict[str, list[int]]:
        """The watermark of every task, by stage and partition (ms)."""
        return {
            "join": [task.watermark for task in self._joins],
            "aggregate": [task.watermark for task in self._aggregates],
        }

    def process(
        self, lines: Sequence[bytes], lines_before: int, offsets: Sequence[int] | None = None
    ) -> list[ReleasedBatch]:
        """Process the next lines of the log.

        Part of the state stays in memory until `checkpoint` writes all of it.

        Args:
            lines_before: number of lines before them.
            offsets: by which rejected records are named; by default, the number of lines before each.

        Returns:
            Usually one batch; more if a quiet partition released a backlog.
        """
        offsets = range(lines_before, lines_before + len(lines)) if offsets is None else offsets
        rejected: list[RejectedRecord] = []
        closed: list[list[JoinedPage]] = [[] for _ in self._joins]
        for start in range(0, len(lines), CHUNK_LINES):
            chunk = lines[start : start + CHUNK_LINES]
            next_offset = lines_before + start + len(chunk)
            batch = decode_batch(chunk, offsets[start : start + len(chunk)])
            self._on_decoded(batch)
            for source, own in enumerate(batch.split(self._partitions)):
                joined_pages, chunk_rejected = self._joins[source].process(own, next_offset)
                closed[source] += joined_pages
                rejected += chunk_rejected
        for source, task in enumerate(self._joins):
            self._send_to_aggregates(source, closed[source], task.watermark)
        self._uncommitted += len(lines)
        return self._drain(rejected)

    def flush(self) -> list[ReleasedBatch]:
        """End the log for good: close every pending page."""
        for source, task in enumerate(self._joins):
            self._send_to_aggregates(source, task.flush(), task.watermark)
        return self.end_sources()

    def end_sources(self) -> list[ReleasedBatch]:
        """Mark every source as read to its end, so that all closed pages are due.

        Records that follow would be late, so a run continues from the state before this call.
        """
        for source in range(self._partitions):
            for task in self._aggregates:
                task.end_source(source)
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

    def _send_to_aggregates(self, source: int, joined_pages: list[JoinedPage], watermark: int) -> None:
        if self._partitions == 1:
            self._aggregates[0].add(source, joined_pages, watermark)
            return
        frames: list[list[JoinedPage]] = [[] for _ in range(self._partitions)]
        partitions = partitions_of([joined_page.query for joined_page in joined_pages], self._partitions)
        for partition, joined_page in zip(partitions, joined_pages, strict=True):
            frames[partition].append(joined_page)
        for task, frame in zip(self._aggregates, frames, strict=True):
            task.add(source, frame, watermark)

    def _drain(self, rejected: list[RejectedRecord]) -> list[ReleasedBatch]:
        """Run the `aggregate` tasks until nothing is due."""
        released = []
        while True:
            for source, task in enumerate(self._aggregates):
                self._example_merge.add(source, task.process(), task.watermark)
            examples, watermark = self._example_merge.release()
            released.append(ReleasedBatch(examples, watermark, rejected))
            rejected = []
            has_backlog = any(task.has_backlog for task in self._aggregates)
            if has_backlog or self._uncommitted >= COMMIT_LINES:
                self._commit()
            if not has_backlog:
                return released

    def _commit(self) -> None:
        """Write the changes of every task, one batch per store."""
        changes = [task.drain_changes() for task in self._joins] + [task.drain_changes() for task in self._aggregates]
        for store, changed in zip(self._stores, changes, strict=True):
            store.write(changed)
        self._uncommitted = 0
