"""What the monitor says, to programs (JSON) and on its page: quality now, who is alive, and what was refused."""

from collections.abc import Mapping
from typing import Final

import msgspec

from prectr.model.quality.sketch import QualitySketch, QualityStats
from prectr.ops.monitor.quality_table import ModelQuality, SourceStatus

STATUS_READING: Final = "reading"
"""How a monitor stands that does what it is there for."""
LIVENESS_TIMEOUT: Final = 45.0
"""A process that has been silent for so long counts as gone: it speaks every ten seconds."""


class MonitorSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor has read, handed over as a whole; nothing in it may change afterwards.

    standing: whether it reads, or what keeps it from that, in words. received: records taken, those that were known
    already among them. refused: by reason. quality: by model.
    """

    status: str
    received: int
    rejected: dict[str, int]
    retained_windows: int
    sources: list[SourceStatus]
    quality: dict[str, ModelQuality]


class SegmentStats(msgspec.Struct, frozen=True, kw_only=True):
    """Figures by the activity of the pages' users."""

    all: QualityStats
    new: QualityStats
    low: QualityStats
    active: QualityStats


class CurrentPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Half an hour of event time that ends at `end` (ms since the epoch)."""

    end: int
    segments: SegmentStats


class CurrentModel(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of a model. until: the event time that it reaches to (ms). windows: 5m, 1h, 24h, run."""

    model: str
    event_time_end: int
    windows: dict[str, SegmentStats]
    timeline: list[CurrentPoint]


class CurrentSource(msgspec.Struct, frozen=True, kw_only=True):
    """A process that publishes. heard, checkpoint: ms since the epoch; until: ms of event time."""

    run: str
    rank: int
    model: str
    alive: bool
    last_record_age_seconds: float
    received_at: int
    checkpoint_time: int
    checkpoint_age_seconds: float
    event_time_end: int


class CurrentQuality(msgspec.Struct, frozen=True, kw_only=True):
    """`/quality.json`. now: ms since the epoch. last_checkpoint: newest of all sources, ms since the epoch."""

    now: int
    status: str
    received: int
    rejected: dict[str, int]
    last_checkpoint_time: int | None
    models: list[CurrentModel]
    sources: list[CurrentSource]


def current_quality(snapshot: MonitorSnapshot, now: float) -> CurrentQuality:
    """What is to be said at `now` (seconds since the epoch)."""
    return CurrentQuality(
        now=round(now * 1000),
        status=snapshot.status,
        received=snapshot.received,
        rejected=snapshot.rejected,
        last_checkpoint_time=max((source.checkpoint_time for source in snapshot.sources), default=None),
        models=[_model(name, quality) for name, quality in snapshot.quality.items()],
        sources=[_source(source, now) for source in snapshot.sources],
    )


def last_record_age(source: SourceStatus, now: float) -> float:
    """Seconds since a process was heard; not negative where clocks differ."""
    return max(0.0, now - source.received_at / 1000)


def _model(name: str, quality: ModelQuality) -> CurrentModel:
    return CurrentModel(
        model=name,
        event_time_end=quality.event_time_end,
        windows={window: _segments(segments) for window, segments in quality.windows.items()},
        timeline=[CurrentPoint(end=slot.end, segments=_segments(slot.segments)) for slot in quality.timeline],
    )


def _segments(segments: Mapping[str, QualitySketch]) -> SegmentStats:
    return SegmentStats(**{name: sketch.stats() for name, sketch in segments.items()})


def _source(source: SourceStatus, now: float) -> CurrentSource:
    age = last_record_age(source, now)
    return CurrentSource(
        run=source.run,
        rank=source.rank,
        model=source.model,
        alive=age < LIVENESS_TIMEOUT,
        last_record_age_seconds=round(age, 1),
        received_at=source.received_at,
        checkpoint_time=source.checkpoint_time,
        checkpoint_age_seconds=round(max(0.0, now - source.checkpoint_time / 1000), 1),
        event_time_end=source.event_time_end,
    )
