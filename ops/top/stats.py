"""The figures of the screen, from what exporters and monitor said: how far, how well, how fresh, task by task."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from prectr.model.quality.quality import SEGMENTS as _ACTIVITIES
from prectr.ops.metrics.quality import WHOLE_RUN
from prectr.ops.monitor.current_quality import QualityNow
from prectr.ops.top.scrape import Asked, Samples

SEGMENTS: Final = ("all", *_ACTIVITIES)
WINDOWS: Final = ("5m", "1h", "24h", WHOLE_RUN)
FEWEST_CLICKS: Final = 20
"""A point of a line that rests on fewer clicks is noise: the same as on the monitor's page."""
_KINDS: Final = (
    ("monitor", "prectr_held_sketches"),
    ("train", "prectr_checkpoint_age_seconds"),
    ("stream", "prectr_task_position"),
    ("replay", "prectr_event_time_seconds"),
    ("train", "prectr_trained_pages_total"),
)
"""What an exporter is, by a metric that only such a one has."""
_LAST_SECONDS: Final = 253_402_300_799
"""The end of the year 9999: a watermark behind it is that of a log that has ended for good."""


class ExporterState(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter, or the monitor's page. kind: what it is, as far as known. trouble: why it says nothing, if so.

    away_seconds: since it last said something, None where it never did.
    """

    url: str
    kind: str
    answers: bool
    trouble: str = ""
    away_seconds: float | None = None


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """AUC and GAUC; None where undefined."""

    auc: float | None = None
    gauc: float | None = None


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """A model. freshness_seconds: event time from its last page to where the stream is; None where nobody says.

    quality: by segment, then by window. timeline: by segment, oldest first: half hours of event time, None where one
    has too few clicks; empty without a monitor.
    """

    model: str
    trained_pages: int | None = None
    freshness_seconds: float | None = None
    checkpoint_age_seconds: float | None = None
    quality: dict[str, dict[str, Pair]]
    timeline: dict[str, list[Pair]]


class TaskState(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a stage; None where its exporter does not say.

    position: offset of the next record. unread: records behind it. behind_seconds: event time from its watermark to the
    largest of any task. replayed: records to be taken again in silence. owners: processes that say they have it.
    """

    stage: str
    partition: int
    position: int | None = None
    unread: int | None = None
    emitted: int | None = None
    behind_seconds: float | None = None
    replayed: int | None = None
    snapshot_age_seconds: float | None = None
    owners: int = 1


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one time; None and empty where nobody says.

    at: seconds since the epoch. pages, clicks: by outcome, with what is open or waits. dead_letters: by reason.
    checkpoint_age_seconds: of the newest checkpoint of any trainer. lag_seconds: event time by which the last task is
    behind the first.
    """

    at: float
    exporters: list[ExporterState]
    pages: dict[str, int]
    clicks: dict[str, int]
    unreadable: int | None = None
    out_of_order: int | None = None
    dead_letters: dict[str, int]
    unread: int | None = None
    lag_seconds: float | None = None
    checkpoint_age_seconds: float | None = None
    models: list[ModelState]
    tasks: list[TaskState]


def kind_of(samples: Samples) -> str:
    """What the exporter is that says this; empty where it does not tell."""
    return next((kind for kind, name in _KINDS if name in samples), "")


def figures(asked: Asked, exporters: list[ExporterState]) -> Figures:
    """What the answers amount to. exporters: how each of them stands."""
    said = [answer.samples for answer in asked.exporters if answer.samples is not None]
    tasks = _tasks(said)
    models = _models(said, asked.monitor.now)
    ages = [model.checkpoint_age_seconds for model in models]
    letters = _summed(said, "prectr_dead_letters_total", "reason")
    unread = [task.unread for task in tasks if task.unread is not None]
    return Figures(
        at=asked.at,
        exporters=exporters,
        pages=_outcomes(said, "impression", "prectr_impressions_total", "open", "prectr_pages_open"),
        clicks=_outcomes(said, "click", "prectr_clicks_total", "waiting", "prectr_clicks_waiting"),
        unreadable=_summed(said, "prectr_events_total", "outcome").get("unreadable"),
        out_of_order=_count(_largest(said, "prectr_out_of_order_total")),
        dead_letters=dict(sorted(letters.items(), key=lambda item: (-item[1], item[0]))),
        unread=sum(unread) if unread else None,
        lag_seconds=max((task.behind_seconds for task in tasks if task.behind_seconds is not None), default=None),
        checkpoint_age_seconds=min(
            (age for age in [*ages, _smallest(said, "prectr_checkpoint_age_seconds")] if age is not None), default=None
        ),
        models=models,
        tasks=tasks,
    )


def _found(said: Iterable[Samples], name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """Every sample of a metric with these labels, whoever says it; what is not a number is left out."""
    wanted = labels.items()
    return [
        (named, value)
        for samples in said
        for named, value in samples.get(name, [])
        if wanted <= named.items() and math.isfinite(value)
    ]


def _largest(said: Iterable[Samples], name: str, **labels: str) -> float | None:
    """Of several processes that say the same, the one that is furthest."""
    return max((value for _, value in _found(said, name, **labels)), default=None)


def _smallest(said: Iterable[Samples], name: str, **labels: str) -> float | None:
    return min((value for _, value in _found(said, name, **labels)), default=None)


def _count(value: float | None) -> int | None:
    return None if value is None else round(value)


def _outcomes(said: Sequence[Samples], of: str, name: str, held: str, gauge: str) -> dict[str, int]:
    """How records ended, by outcome, after what came `in` and what is still held."""
    received = _summed(said, "prectr_events_total", "outcome").get(of)
    still = _summed(said, gauge)
    found = {} if received is None else {"in": received}
    if still:
        found[held] = sum(still.values())
    return found | _summed(said, name, "outcome")


def _summed(said: Iterable[Samples], name: str, label: str = "") -> dict[str, int]:
    """A count by a label, over all tasks; what two say of one task is taken once, from the one that is further."""
    by_task: dict[tuple[str, str, str], float] = {}
    for named, value in _found(said, name):
        key = (named.get(label, ""), named.get("stage", ""), named.get("partition", ""))
        by_task[key] = max(value, by_task.get(key, value))
    found: dict[str, int] = {}
    for (kind, _, _), value in by_task.items():
        found[kind] = found.get(kind, 0) + round(value)
    return found


def _tasks(said: Sequence[Samples]) -> list[TaskState]:
    """Every task that any process says it has, by stage and partition."""
    by_name = {
        field: _by_task(said, name)
        for field, name in (
            ("position", "prectr_task_position"),
            ("unread", "prectr_consumer_lag_records"),
            ("emitted", "prectr_emitted_records_total"),
            ("watermark", "prectr_watermark_timestamp_seconds"),
            ("lag", "prectr_watermark_lag_seconds"),
            ("replayed", "prectr_replayed_records_behind"),
            ("snapshot", "prectr_snapshot_age_seconds"),
        )
    }
    watermarks = {task: values for task, values in by_name["watermark"].items() if 0 <= max(values) <= _LAST_SECONDS}
    lags = by_name["lag"]
    furthest = max((max(values) for values in watermarks.values()), default=0.0)
    tasks = []
    for stage, partition in sorted({task for found in by_name.values() for task in found}, key=_in_order):
        key = (stage, partition)
        # Of two that say they have it, during a rebalance, the one that is further has it.
        values = {field: max(found[key]) if key in found else None for field, found in by_name.items()}
        behind = furthest - max(watermarks[key]) if key in watermarks else max(lags[key]) if key in lags else None
        tasks.append(
            TaskState(
                stage=stage,
                partition=partition,
                position=_count(values["position"]),
                unread=_count(values["unread"]),
                emitted=_count(values["emitted"]),
                behind_seconds=behind,
                replayed=_count(values["replayed"]),
                snapshot_age_seconds=values["snapshot"],
                owners=len(by_name["position"].get(key, [None])),
            )
        )
    return tasks


def _in_order(task: tuple[str, int]) -> tuple[int, str, int]:
    stages = ("sessions", "queries", "train")
    stage, partition = task
    return stages.index(stage) if stage in stages else len(stages), stage, partition


def _by_task(said: Iterable[Samples], name: str) -> dict[tuple[str, int], list[float]]:
    """What each process says of a task that it has."""
    found: dict[tuple[str, int], list[float]] = {}
    for named, value in _found(said, name):
        number = named.get("partition", "")
        if number.isascii() and number.isdigit():
            found.setdefault((named.get("stage", ""), int(number)), []).append(value)
    return found


def _models(said: Sequence[Samples], now: QualityNow | None) -> list[ModelState]:
    names = {
        named["model"]
        for name in ("prectr_trained_pages_total", "prectr_auc", "prectr_scored_pages_total")
        for named, _ in _found(said, name)
        if named.get("model")
    }
    by_monitor = {} if now is None else {model.model: model for model in now.models}
    ages: dict[str, float] = {}
    for source in () if now is None else now.sources:
        ages[source.model] = min(source.checkpoint_age_seconds, ages.get(source.model, math.inf))
    models = []
    for name in sorted(names | by_monitor.keys()):
        quality = _quality(said, name)
        timeline: dict[str, list[Pair]] = {segment: [] for segment in SEGMENTS}
        seen = by_monitor.get(name)
        if seen is not None:
            for window, segments in seen.windows.items():
                for segment in SEGMENTS:
                    of = getattr(segments, segment)
                    quality[segment][window] = Pair(auc=of.auc, gauc=of.gauc)
            for point in seen.timeline:
                for segment in SEGMENTS:
                    of = getattr(point.segments, segment)
                    enough = of.clicks >= FEWEST_CLICKS
                    timeline[segment].append(Pair(auc=of.auc, gauc=of.gauc) if enough else Pair())
        published = _smallest(said, "prectr_published_checkpoint_age_seconds", model=name)
        models.append(
            ModelState(
                model=name,
                trained_pages=_count(_largest(said, "prectr_trained_pages_total", model=name)),
                freshness_seconds=_smallest(said, "prectr_model_freshness_seconds", model=name),
                checkpoint_age_seconds=ages.get(name, published),
                quality=quality,
                timeline=timeline,
            )
        )
    return models


def _quality(said: Sequence[Samples], model: str) -> dict[str, dict[str, Pair]]:
    """By segment, then by window, as the exporters say it."""
    quality: dict[str, dict[str, Pair]] = {segment: {} for segment in SEGMENTS}
    measured: Mapping[str, dict[tuple[str, str], float]] = {
        name: {
            (named.get("segment", ""), named.get("window", "")): value
            for named, value in _found(said, f"prectr_{name}", model=model)
        }
        for name in ("auc", "gauc")
    }
    for segment, window in measured["auc"].keys() | measured["gauc"].keys():
        if segment in quality:
            at = (segment, window)
            quality[segment][window] = Pair(auc=measured["auc"].get(at), gauc=measured["gauc"].get(at))
    return quality
