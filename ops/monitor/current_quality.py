"""What the monitor serves as JSON and on its page: current quality, live trainers, rejected records."""

from collections.abc import Mapping
from typing import Final

import msgspec

from prectr.model.quality.sketch import QualitySketch, QualityStats
from prectr.ops.monitor.quality_table import ModelQuality, SourceStatus

STATUS_READING: Final = "reading"
"""The status of a monitor that is up and reading."""
LIVENESS_TIMEOUT: Final = 45.0
"""Seconds after its last record until a trainer counts as gone; it publishes every 10 s."""


class MonitorSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor has read. Immutable, including its parts.

    status: STATUS_READING, or what prevents reading. received: records read, including repeated ones. rejected: by
    reason. retained_windows: number of quality windows held. sources: trainers that have published. quality: by model.
    """

    status: str
    received: int
    rejected: dict[str, int]
    retained_windows: int
    sources: list[SourceStatus]
    quality: dict[str, ModelQuality]


class SegmentStats(msgspec.Struct, frozen=True, kw_only=True):
    """Quality by segment: the activity of the page's user."""

    all: QualityStats
    new: QualityStats
    low: QualityStats
    active: QualityStats


class CurrentPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of half an hour of event time. end: of the half hour, ms since the epoch."""

    end: int
    segments: SegmentStats


class CurrentModel(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of a model. event_time_end: up to which it is known, ms. windows: by 5m, 1h, 24h and run."""

    model: str
    event_time_end: int
    windows: dict[str, SegmentStats]
    timeline: list[CurrentPoint]


class CurrentSource(msgspec.Struct, frozen=True, kw_only=True):
    """A trainer process. received_at, checkpoint_time: ms since the epoch. event_time_end: ms of event time."""

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
    """`/quality.json`. now: ms since the epoch. last_checkpoint_time: newest of all trainers, ms since the epoch."""

    now: int
    status: str
    received: int
    rejected: dict[str, int]
    last_checkpoint_time: int | None
    models: list[CurrentModel]
    sources: list[CurrentSource]


def current_quality(snapshot: MonitorSnapshot, now: float) -> CurrentQuality:
    """The current quality as of `now`, in seconds since the epoch."""
    return CurrentQuality(
        now=round(now * 1000),
        status=snapshot.status,
        received=snapshot.received,
        rejected=snapshot.rejected,
        last_checkpoint_time=max((source.checkpoint_time for source in snapshot.sources), default=None),
        models=[_model(name, quality) for name, quality in snapshot.quality.items()],
        sources=[_source(source, now) for source in snapshot.sources],
    )


def unready_reason(snapshot: MonitorSnapshot) -> str:
    """Why the monitor reads nothing; empty if it reads."""
    return "" if snapshot.status == STATUS_READING else snapshot.status


def last_record_age(source: SourceStatus, now: float) -> float:
    """Seconds since the last record of a trainer; not negative if clocks differ."""
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
