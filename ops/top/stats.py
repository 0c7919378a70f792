"""Merges the responses of exporters and monitor into the status of the system."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from prectr.model.quality.quality import SEGMENTS as _ACTIVITIES
from prectr.ops.metrics.quality import WHOLE_RUN
from prectr.ops.monitor.current_quality import CurrentQuality
from prectr.ops.top.scrape import Samples, Scrape

SEGMENTS: Final = ("all", *_ACTIVITIES)
WINDOWS: Final = ("5m", "1h", "24h", WHOLE_RUN)
MIN_CLICKS: Final = 20
"""Points of fewer clicks are noise and are not shown, as on the monitor's page."""
_KINDS: Final = (
    ("monitor", "prectr_quality_windows_retained"),
    ("train", "prectr_checkpoint_age_seconds"),
    ("stream", "prectr_task_offset"),
    ("replay", "prectr_low_watermark_timestamp_seconds"),
    ("train", "prectr_trained_pages_total"),
)
"""Kinds of exporters, each with a metric that only this kind has."""
_TRAIN: Final = "train"
_MAX_TIMESTAMP: Final = 253_402_300_799
"""The end of the year 9999: a later watermark is that of a log that has ended."""


class ExporterState(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter, or the monitor's page.

    kind: stream, train, monitor or replay; empty if unknown. error: why it has no metrics; empty if it has.
    down_seconds: since its last response; None if it is up or has never responded.
    """

    url: str
    kind: str
    up: bool
    error: str = ""
    down_seconds: float | None = None


class AucPair(msgspec.Struct, frozen=True, kw_only=True):
    """AUC and GAUC; None where undefined."""

    auc: float | None = None
    gauc: float | None = None


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """A model; None where no endpoint exports a value.

    staleness_seconds: event time from its last trained page to the newest watermark. quality: by segment, then window.
    timeline: by segment, per half hour of event time, oldest first; undefined where there are too few clicks; empty
    without a monitor.
    """

    model: str
    trained_pages: int | None = None
    staleness_seconds: float | None = None
    checkpoint_age_seconds: float | None = None
    quality: dict[str, dict[str, AucPair]]
    timeline: dict[str, list[AucPair]]


class TaskState(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a stage, or a trainer's reading of a partition; None where its exporter has no value.

    models: of the trainer, comma-separated; empty for a task. offset: of the next record. lag: unread records.
    watermark: in seconds since the epoch; None also for a log that has ended. watermark_lag_seconds: event time to the
    largest watermark of any task. restore_remaining: records left to restore. owners: number of processes that export
    it.
    """

    stage: str
    partition: int
    models: str = ""
    offset: int | None = None
    lag: int | None = None
    emitted: int | None = None
    watermark: float | None = None
    watermark_lag_seconds: float | None = None
    restore_remaining: int | None = None
    snapshot_age_seconds: float | None = None
    owners: int = 1


class SystemStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of the system at one time; None or empty where no endpoint exports a value.

    at: seconds since the epoch. pages, clicks: by outcome, including pending ones. dead_letters: by reason. lag: unread
    records of all tasks. lag_by_trainer: unread examples, by the models of the trainer. watermark_lag_seconds: the
    largest of all tasks. checkpoint_age_seconds: of the newest checkpoint of any trainer. broker_unreachable_seconds:
    the largest of all processes; 0 while Kafka answers all. last_event_at: when the newest event that was read arrived,
    in seconds since the epoch. longest_usual_silence: seconds without one before that is conspicuous.
    """

    at: float
    exporters: list[ExporterState]
    pages: dict[str, int]
    clicks: dict[str, int]
    unreadable: int | None = None
    late_records: int | None = None
    dead_letters: dict[str, int]
    lag: int | None = None
    lag_by_trainer: dict[str, int]
    watermark_lag_seconds: float | None = None
    checkpoint_age_seconds: float | None = None
    broker_unreachable_seconds: float | None = None
    last_event_at: float | None = None
    longest_usual_silence: float | None = None
    models: list[ModelState]
    tasks: list[TaskState]


def exporter_kind(samples: Samples) -> str:
    """The kind of an exporter, from its metrics; empty if unknown."""
    return next((kind for kind, name in _KINDS if name in samples), "")


def system_status(scrape: Scrape, exporters: list[ExporterState]) -> SystemStatus:
    """Merge the responses. exporters: the state of each endpoint."""
    scraped = [answer.samples for answer in scrape.exporters if answer.samples is not None]
    tasks = _tasks(scraped)
    models = _models(scraped, scrape.monitor.quality)
    ages = [model.checkpoint_age_seconds for model in models]
    dead_letters = _sum_by_label(scraped, "prectr_dead_letters_total", "reason")
    lags = [task.lag for task in tasks if task.lag is not None and task.stage != _TRAIN]
    return SystemStatus(
        at=scrape.at,
        exporters=exporters,
        pages=_outcomes(scraped, "page", "prectr_pages_total", "open", "prectr_pending_pages"),
        clicks=_outcomes(scraped, "click", "prectr_clicks_total", "waiting", "prectr_pending_clicks"),
        unreadable=_sum_by_label(scraped, "prectr_events_total", "type").get("unreadable"),
        late_records=_count(_largest(scraped, "prectr_late_records_total")),
        dead_letters=dict(sorted(dead_letters.items(), key=lambda item: (-item[1], item[0]))),
        lag=sum(lags) if lags else None,
        lag_by_trainer=_lag_by_trainer(tasks),
        watermark_lag_seconds=max(
            (task.watermark_lag_seconds for task in tasks if task.watermark_lag_seconds is not None), default=None
        ),
        checkpoint_age_seconds=min(
            (age for age in [*ages, _smallest(scraped, "prectr_checkpoint_age_seconds")] if age is not None),
            default=None,
        ),
        broker_unreachable_seconds=_largest(scraped, "prectr_broker_unreachable_seconds"),
        last_event_at=_largest(scraped, "prectr_last_event_timestamp_seconds"),
        # An event in any partition ends the silence.
        longest_usual_silence=_smallest(scraped, "prectr_longest_usual_silence_seconds"),
        models=models,
        tasks=tasks,
    )


def _lag_by_trainer(tasks: Iterable[TaskState]) -> dict[str, int]:
    """Unread examples of each trainer; several trainers read all of them, each at its own pace."""
    found: dict[str, int] = {}
    for task in tasks:
        if task.stage == _TRAIN and task.lag is not None:
            found[task.models] = found.get(task.models, 0) + task.lag
    return found


def _samples(scraped: Iterable[Samples], name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """All finite samples of a metric with these labels, from any exporter."""
    required = labels.items()
    return [
        (labels_found, value)
        for samples in scraped
        for labels_found, value in samples.get(name, [])
        if required <= labels_found.items() and math.isfinite(value)
    ]


def _largest(scraped: Iterable[Samples], name: str, **labels: str) -> float | None:
    """The largest value, if several processes export the same."""
    return max((value for _, value in _samples(scraped, name, **labels)), default=None)


def _smallest(scraped: Iterable[Samples], name: str, **labels: str) -> float | None:
    return min((value for _, value in _samples(scraped, name, **labels)), default=None)


def _count(value: float | None) -> int | None:
    return None if value is None else round(value)


def _outcomes(scraped: Sequence[Samples], event_type: str, name: str, pending: str, gauge: str) -> dict[str, int]:
    """Counts by outcome, preceded by the number received (`in`) and the number pending."""
    received = _sum_by_label(scraped, "prectr_events_total", "type").get(event_type)
    pending_counts = _sum_by_label(scraped, gauge)
    found = {} if received is None else {"in": received}
    if pending_counts:
        found[pending] = sum(pending_counts.values())
    return found | _sum_by_label(scraped, name, "outcome")


def _sum_by_label(scraped: Iterable[Samples], name: str, label: str = "") -> dict[str, int]:
    """A count by label, over all tasks; if two processes export a task, the larger count is used."""
    by_task: dict[tuple[str, str, str], float] = {}
    for named, value in _samples(scraped, name):
        key = (named.get(label, ""), named.get("stage", ""), named.get("partition", ""))
        by_task[key] = max(value, by_task.get(key, value))
    found: dict[str, int] = {}
    for (kind, _, _), value in by_task.items():
        found[kind] = found.get(kind, 0) + round(value)
    return found


def _tasks(scraped: Sequence[Samples]) -> list[TaskState]:
    """All exported tasks, by stage and partition."""
    by_name = {
        field: _by_task(scraped, name)
        for field, name in (
            ("offset", "prectr_task_offset"),
            ("lag", "prectr_consumer_lag_records"),
            ("emitted", "prectr_emitted_records_total"),
            ("watermark", "prectr_watermark_timestamp_seconds"),
            ("watermark_lag", "prectr_watermark_lag_seconds"),
            ("restore_remaining", "prectr_restore_remaining_records"),
            ("snapshot", "prectr_snapshot_age_seconds"),
        )
    }
    watermarks = {task: values for task, values in by_name["watermark"].items() if 0 <= max(values) <= _MAX_TIMESTAMP}
    lags = by_name["watermark_lag"]
    furthest = max((max(values) for values in watermarks.values()), default=0.0)
    tasks = []
    for key in sorted({task for found in by_name.values() for task in found}, key=_task_order):
        # During a rebalance two processes may export a task: use the larger values.
        values = {field: max(found[key]) if key in found else None for field, found in by_name.items()}
        lag = furthest - max(watermarks[key]) if key in watermarks else max(lags[key]) if key in lags else None
        tasks.append(
            TaskState(
                stage=key.stage,
                partition=key.partition,
                models=key.models,
                offset=_count(values["offset"]),
                lag=_count(values["lag"]),
                emitted=_count(values["emitted"]),
                watermark=max(watermarks[key]) if key in watermarks else None,
                watermark_lag_seconds=lag,
                restore_remaining=_count(values["restore_remaining"]),
                snapshot_age_seconds=values["snapshot"],
                owners=len(by_name["offset"].get(key, [None])),
            )
        )
    return tasks


class _TaskKey(NamedTuple):
    """What tells tasks apart: the trainers of different models read the same partitions."""

    stage: str
    partition: int
    models: str


def _task_order(task: _TaskKey) -> tuple[int, str, str, int]:
    stages = ("join", "aggregate", _TRAIN)
    return stages.index(task.stage) if task.stage in stages else len(stages), task.stage, task.models, task.partition


def _by_task(scraped: Iterable[Samples], name: str) -> dict[_TaskKey, list[float]]:
    """The values of each process, by task."""
    found: dict[_TaskKey, list[float]] = {}
    for samples in scraped:
        models = ", ".join(
            sorted({named.get("model", "") for named, _ in samples.get("prectr_trained_pages_total", [])})
        )
        for named, value in _samples([samples], name):
            number, stage = named.get("partition", ""), named.get("stage", "")
            if number.isascii() and number.isdigit():
                key = _TaskKey(stage, int(number), models if stage == _TRAIN else "")
                found.setdefault(key, []).append(value)
    return found


def _models(scraped: Sequence[Samples], current: CurrentQuality | None) -> list[ModelState]:
    names = {
        named["model"]
        for name in ("prectr_trained_pages_total", "prectr_auc", "prectr_scored_pages_total")
        for named, _ in _samples(scraped, name)
        if named.get("model")
    }
    by_monitor = {} if current is None else {model.model: model for model in current.models}
    ages: dict[str, float] = {}
    for source in () if current is None else current.sources:
        ages[source.model] = min(source.checkpoint_age_seconds, ages.get(source.model, math.inf))
    models = []
    for name in sorted(names | by_monitor.keys()):
        quality = _quality(scraped, name)
        timeline: dict[str, list[AucPair]] = {segment: [] for segment in SEGMENTS}
        monitored = by_monitor.get(name)
        if monitored is not None:
            for window, segments in monitored.windows.items():
                for segment in SEGMENTS:
                    of = getattr(segments, segment)
                    quality[segment][window] = AucPair(auc=of.auc, gauc=of.gauc)
            for point in monitored.timeline:
                for segment in SEGMENTS:
                    of = getattr(point.segments, segment)
                    enough = of.clicks >= MIN_CLICKS
                    timeline[segment].append(AucPair(auc=of.auc, gauc=of.gauc) if enough else AucPair())
        published = _smallest(scraped, "prectr_published_checkpoint_age_seconds", model=name)
        models.append(
            ModelState(
                model=name,
                trained_pages=_count(_largest(scraped, "prectr_trained_pages_total", model=name)),
                staleness_seconds=_smallest(scraped, "prectr_model_staleness_seconds", model=name),
                checkpoint_age_seconds=ages.get(name, published),
                quality=quality,
                timeline=timeline,
            )
        )
    return models


def _quality(scraped: Sequence[Samples], model: str) -> dict[str, dict[str, AucPair]]:
    """Exported quality of a model, by segment, then window."""
    quality: dict[str, dict[str, AucPair]] = {segment: {} for segment in SEGMENTS}
    measured: Mapping[str, dict[tuple[str, str], float]] = {
        name: {
            (named.get("segment", ""), named.get("window", "")): value
            for named, value in _samples(scraped, f"prectr_{name}", model=model)
        }
        for name in ("auc", "gauc")
    }
    for segment, window in measured["auc"].keys() | measured["gauc"].keys():
        if segment in quality:
            at = (segment, window)
            quality[segment][window] = AucPair(auc=measured["auc"].get(at), gauc=measured["gauc"].get(at))
    return quality
