"""Drives stage `aggregate` with frames of several sources, and crashes before their state is written."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from prectr.state.store import ReadableStore
from prectr.stream.config import PipelineConfig
from prectr.stream.records import Example, JoinedPage
from prectr.stream.stages import AggregateStage, open_aggregate
from tests.kit.stages.store import DictStore


class SourceFrame(NamedTuple):
    """A frame of one source."""

    source: int
    records: list[JoinedPage]
    watermark: int


class AggregateDriver:
    """Feeds one task and collects its committed examples, each exactly once."""

    def __init__(
        self,
        sources: int,
        config: PipelineConfig | None = None,
        opened: Callable[[PipelineConfig, ReadableStore, int], AggregateStage] = open_aggregate,
    ) -> None:
        self.sources = sources
        self.config = config or PipelineConfig()
        self.store = DictStore()
        self.examples: list[Example] = []
        self.rounds = 0
        self._opened = opened
        self._frames_written = 0
        self.task = self.restart()

    def run(self, frames: Sequence[SourceFrame], frames_per_round: int = 1, crashes: Collection[int] = ()) -> None:
        """Process `frames` in rounds; crash once before writing the state of each round in `crashes`."""
        remaining_crashes = set(crashes)
        while self._frames_written < len(frames):
            end = min(len(frames), self._frames_written + frames_per_round)
            for frame in frames[self._frames_written : end]:
                self.task.add(*frame)
            self.rounds += 1
            if self.rounds in remaining_crashes:
                remaining_crashes.remove(self.rounds)
                self._commit(self.task.process())
                self.restart()
                continue
            self.drain()
            self._frames_written = end

    def end(self) -> None:
        for source in range(self.sources):
            self.task.end_source(source)
        self.drain()

    def drain(self) -> None:
        """Process and write until nothing is due, as a runner does."""
        while True:
            self._commit(self.task.process())
            self.store.write(self.task.drain_changes())
            if not self.task.has_backlog:
                return

    def restart(self) -> AggregateStage:
        """Open the task with what the store has."""
        self.task = self._opened(self.config, self.store, self.sources)
        return self.task

    def _commit(self, examples: list[Example]) -> None:
        number = self.task.emitted - len(examples)
        repeated = min(len(self.examples) - number, len(examples))
        assert examples[:repeated] == self.examples[number : number + repeated]
        self.examples += examples[repeated:]
