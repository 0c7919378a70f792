"""The one place that chooses between the core in C++ and the stages in Python, which are its specification.

Outputs, state and digests are the same with either, and a run may go on with the other.
"""

import os
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from prectr.state.aggregates import LevelCounts
from prectr.state.errors import UsageError
from prectr.state.store import ReadableStore
from prectr.stream.aggregate.operator import Aggregate
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import ResultPage
from prectr.stream.events.event_batch import EventBatch
from prectr.stream.join.operator import Join, RejectedRecord
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.native.build import problem_of_build
from prectr.stream.ordering.frames import Frame
from prectr.stream.records import Example, JoinedPage

VARIABLE: Final = "PRECTR_NATIVE"


class JoinStage(Protocol):
    """One task of stage `join`; `prectr.stream.join.operator.Join` has the contract."""

    next_offset: int

    @property
    def outcomes(self) -> Outcomes: ...  # noqa: D102
    @property
    def watermark(self) -> int: ...  # noqa: D102
    @property
    def next_close(self) -> int: ...  # noqa: D102
    def future_events(self) -> tuple[int, int]: ...  # noqa: D102
    def process(  # noqa: D102
        self, batch: EventBatch, next_offset: int
    ) -> tuple[list[JoinedPage], list[RejectedRecord]]: ...
    def flush(self) -> list[JoinedPage]: ...  # noqa: D102
    def drain_changes(self) -> dict[bytes, bytes | None]: ...  # noqa: D102


class AggregateStage(Protocol):
    """One task of stage `aggregate`; `prectr.stream.aggregate.operator.Aggregate` has the contract."""

    next_offset: int
    emitted: int
    watermark: int
    outcomes: dict[int, Outcomes]
    reached_end_offsets: dict[int, int]
    next_sequences: list[int]

    @property
    def has_backlog(self) -> bool: ...  # noqa: D102
    @property
    def max_source_watermark(self) -> int: ...  # noqa: D102
    @property
    def late_records(self) -> int: ...  # noqa: D102
    @property
    def buffered(self) -> int: ...  # noqa: D102
    @property
    def cached_queries(self) -> int: ...  # noqa: D102
    def add(self, source: int, records: Sequence[JoinedPage], watermark: int) -> None: ...  # noqa: D102
    def add_frame(self, frame: Frame, source_name: str) -> None: ...  # noqa: D102
    def end_source(self, source: int) -> None: ...  # noqa: D102
    def process(self) -> list[Example]: ...  # noqa: D102
    def process_encoded(self, committed: int) -> tuple[list[bytes], LevelCounts]: ...  # noqa: D102
    def drain_changes(self) -> dict[bytes, bytes | None]: ...  # noqa: D102


def python_reason() -> str:
    """Return why the stages run in Python; empty if they run in the native core.

    Raises:
        UsageError: the native core is required, and cannot be used.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted == "0":
        return f"{VARIABLE}=0"
    problem = problem_of_build()
    if problem and wanted == "1":
        raise UsageError(f"{VARIABLE}=1, but {problem}")
    return problem


def described() -> str:
    """Return in a few words which implementation runs."""
    reason = python_reason()
    return f"stages in Python ({reason})" if reason else "native core"


IS_NATIVE: Final = not python_reason()
"""Whether the stages run in the native core, in this process."""


def decode_batch(lines: Sequence[bytes], offsets: Sequence[int]) -> EventBatch:
    """Decode records for `open_join`'s task."""
    if IS_NATIVE:
        from prectr.stream.native.event_batch import NativeEventBatch  # noqa: PLC0415 (may not be built)

        return NativeEventBatch(lines, offsets)
    return EventBatch(lines, offsets)


def open_join(config: PipelineConfig, store: ReadableStore, label: Callable[[str, ResultPage], None]) -> JoinStage:
    """Restore a task of stage `join` from `store`. `label` fills in missing relevance levels in place."""
    if IS_NATIVE:
        from prectr.stream.native.join import NativeJoin  # noqa: PLC0415 (may not be built)

        return NativeJoin(config, store, label)
    return Join(config, store, label)


def open_aggregate(config: PipelineConfig, store: ReadableStore, sources: int) -> AggregateStage:
    """Restore a task of stage `aggregate` from `store`. sources: number of tasks of stage `join`."""
    if IS_NATIVE:
        from prectr.stream.native.aggregate import NativeAggregate  # noqa: PLC0415 (may not be built)

        return NativeAggregate(config, store, sources)
    return Aggregate(config, store, sources)
