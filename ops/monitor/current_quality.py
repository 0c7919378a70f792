"""What the monitor says, to programs (JSON) and on its page: quality now, who is alive, and what was refused."""

from collections.abc import Mapping
from typing import Final

import msgspec

from prectr.model.quality.sketch import Figures, QualitySketch
from prectr.ops.monitor.quality_table import ModelQuality, SourceFacts

READING: Final = "reading"
"""How a monitor stands that does what it is there for."""
ALIVE_SECONDS: Final = 45.0
"""A process that has been silent for so long counts as gone: it speaks every ten seconds."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor has read, handed over as a whole; nothing in it may change afterwards.

    standing: whether it reads, or what keeps it from that, in words. received: records taken, those that were known
    already among them. refused: by reason. quality: by model.
    """

    standing: str
    received: int
    refused: dict[str, int]
    stretches: int
    sources: list[SourceFacts]
    quality: dict[str, ModelQuality]


class SegmentsNow(msgspec.Struct, frozen=True, kw_only=True):
    """Figures by the activity of the pages' users."""

    all: Figures
    new: Figures
    low: Figures
    active: Figures


class PointNow(msgspec.Struct, frozen=True, kw_only=True):
    """Half an hour of event time that ends at `end` (ms since the epoch)."""

    end: int
    segments: SegmentsNow


class ModelNow(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of a model. until: the event time that it reaches to (ms). windows: 5m, 1h, 24h, run."""

    model: str
    until: int
    windows: dict[str, SegmentsNow]
    timeline: list[PointNow]


class SourceNow(msgspec.Struct, frozen=True, kw_only=True):
    """A process that publishes. heard, checkpoint: ms since the epoch; until: ms of event time."""

    run: str
    rank: int
    model: str
    alive: bool
    silent_seconds: float
    heard: int
    checkpoint: int
    checkpoint_age_seconds: float
    until: int


class QualityNow(msgspec.Struct, frozen=True, kw_only=True):
    """`/quality.json`. now: ms since the epoch. last_checkpoint: newest of all sources, ms since the epoch."""

    now: int
    standing: str
    received: int
    refused: dict[str, int]
    last_checkpoint: int | None
    models: list[ModelNow]
    sources: list[SourceNow]


def quality_now(reading: Reading, now: float) -> QualityNow:
    """What is to be said at `now` (seconds since the epoch)."""
    return QualityNow(
        now=round(now * 1000),
        standing=reading.standing,
        received=reading.received,
        refused=reading.refused,
        last_checkpoint=max((source.checkpoint for source in reading.sources), default=None),
        models=[_model(name, quality) for name, quality in reading.quality.items()],
        sources=[_source(source, now) for source in reading.sources],
    )


def silence(source: SourceFacts, now: float) -> float:
    """Seconds since a process was heard; not negative where clocks differ."""
    return max(0.0, now - source.heard / 1000)


def _model(name: str, quality: ModelQuality) -> ModelNow:
    return ModelNow(
        model=name,
        until=quality.until,
        windows={window: _segments(segments) for window, segments in quality.windows.items()},
        timeline=[PointNow(end=slot.end, segments=_segments(slot.segments)) for slot in quality.timeline],
    )


def _segments(segments: Mapping[str, QualitySketch]) -> SegmentsNow:
    return SegmentsNow(**{name: sketch.figures() for name, sketch in segments.items()})


def _source(source: SourceFacts, now: float) -> SourceNow:
    silent = silence(source, now)
    return SourceNow(
        run=source.run,
        rank=source.rank,
        model=source.model,
        alive=silent < ALIVE_SECONDS,
        silent_seconds=round(silent, 1),
        heard=source.heard,
        checkpoint=source.checkpoint,
        checkpoint_age_seconds=round(max(0.0, now - source.checkpoint / 1000), 1),
        until=source.until,
    )
