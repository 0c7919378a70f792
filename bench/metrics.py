"""`python -m bench.metrics`: the overhead of metrics and quality reporting, as a share of CPU time, in one run.

A trainer trains on a simulated log; each part of the instrumentation is then timed on the same batches, multiplied by
its rate, and divided by the CPU time of the training. A plain and an instrumented trainer, run alternately a few
batches at a time, verify the sum. For a stream process, work per page is divided by the CPU time of the stages per
page, and periodic work by CPU time itself.
"""

import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Annotated, Any, Final

import msgspec
import torch
import typer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from prectr.model.config import TrainerConfig
from prectr.model.quality.record import RECORD_VERSION, QualityRecord, encode_record
from prectr.model.quality.scored_pages import ScoredPages, scored_pages_of
from prectr.model.quality.sketch import SketchUpdate, sketch_update
from prectr.model.quality.windows import WindowBuffer
from prectr.model.training.instrumentation import InstrumentedTrainer
from prectr.model.training.trainer import BatchScores, Trainer
from prectr.ops.metrics.stream import stream_metrics
from prectr.ops.metrics.train import ModelTrainingStatus, TrainerStatus, learning_rates, train_metrics, train_snapshot
from prectr.state.snapshots.snapshotter import SnapshotProgress
from prectr.state.store import Store, StoreOptions, StoreStats
from prectr.stream.aggregate.operator import count_levels_of_pages
from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.tasks.task_metrics import DurationHistogram, TaskCounts
from prectr.stream.kafka.tasks.task_status import TaskStatus
from prectr.stream.records import Example
from prectr.stream.replay.runner import Replay, RunnerOptions
from prectr.stream.simulator import WorldSettings, simulate

_SNAPSHOTS_PER_SECOND: Final = 2.0
"""Rate at which a trainer passes its stats to the exporter."""
_STATUS_SAMPLES_PER_SECOND: Final = 5.0
"""Rate at which a stream process publishes the status of its tasks."""
_BATCHES_PER_SECOND: Final = 10.0
"""Maximum per task: records are buffered for a tenth of a second."""
_STORE_STATS_PER_SECOND: Final = 0.1
"""Rate at which a task reads the statistics of its RocksDB."""
_SCRAPES_PER_SECOND: Final = 1 / 15
_CHECKPOINT_PAGES: Final = 4_096
"""Pages between two checkpoints, at which quality windows are sealed and published."""
_INTERLEAVED_BATCHES: Final = 8
_INTERLEAVED_PAGES: Final = 2_500
_ROUNDS: Final = 8
_REPEATS: Final = 50
_TASKS: Final = 8


_ScoredBatch = tuple[ScoredPages, SketchUpdate]
"""The scored pages of a batch, and their sketch."""


class Row(msgspec.Struct):
    """One part of the instrumentation, and its share of the CPU time of the instrumented work."""

    name: str
    share: float


class Result(msgspec.Struct):
    """Overheads of the trainer and of a stream process, part by part.

    total_*: sums of the parts, target below 0.01. interleaved_overhead, interleaved_error: overhead of an instrumented
    trainer over a plain one measured as a whole, and its standard error.
    """

    pages: int
    model: str
    microseconds_per_page: float
    quality_windows: int
    trainer: list[Row]
    stream: list[Row]
    total_trainer: float
    total_stream: float
    interleaved_overhead: float
    interleaved_error: float


class _CollectingSink:
    """A sink that collects every example."""

    def __init__(self) -> None:
        self.examples: list[Example] = []

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        self.examples += examples

    def flush(self) -> None:
        """Nothing is buffered."""

    def save(self, folder: Path) -> None:
        """Nothing to save."""

    def load(self, folder: Path) -> None:
        """Nothing to load."""


def main(
    pages: Annotated[int, typer.Option(help="Pages to simulate.")] = 12_000,
    days: Annotated[float, typer.Option(help="Event time covered by the log, in days.")] = 2.0,
    model: Annotated[
        str, typer.Option(help="Model to train; the overhead is largest for the fastest one, lr.")
    ] = "wide-deep+",
    json: Annotated[Path | None, typer.Option(help="Write the result to this file as JSON.")] = None,
) -> None:
    """Print the overhead of metrics and of published quality, as shares of the CPU time of the work."""
    torch.set_num_threads(1)
    examples, stage_seconds = _make_examples(pages, days)
    config = TrainerConfig(model=model, device="cpu", threads=1)
    batches, train_seconds = _train_plain(config, examples)
    print(f"{len(examples):,} pages, {1e6 * train_seconds / len(examples):.0f} µs of CPU time each", file=sys.stderr)
    windows = _quality_records(batches)
    trainer = _trainer_overheads(config, examples, batches, windows, train_seconds)
    stream = _stream_overheads(examples, stage_seconds)
    overhead, error = _interleaved_overhead(config, examples)
    result = Result(
        pages=len(examples),
        model=model,
        microseconds_per_page=1e6 * train_seconds / len(examples),
        quality_windows=len(windows),
        trainer=trainer,
        stream=stream,
        total_trainer=sum(row.share for row in trainer),
        total_stream=sum(row.share for row in stream),
        interleaved_overhead=overhead,
        interleaved_error=error,
    )
    _print(result)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


def _trainer_overheads(
    config: TrainerConfig,
    examples: Sequence[Example],
    batches: Sequence[_ScoredBatch],
    windows: Sequence[QualityRecord],
    train_seconds: float,
) -> list[Row]:
    """Overheads of an instrumented trainer, as shares of the CPU time of a plain one."""
    instrumented = InstrumentedTrainer(config)
    instrumented.consume(examples[: 64 * config.batch_pages], 0)
    snapshot = _exporter_snapshot(instrumented)
    exporter = _median_cpu_seconds(lambda: _exporter_snapshot(instrumented)) * _SNAPSHOTS_PER_SECOND
    return [
        Row("quality windows", _median_cpu_seconds(lambda: _add_to_windows(batches), 3) / train_seconds),
        Row("encoding quality records", _median_cpu_seconds(lambda: _encode_records(windows), 3) / train_seconds),
        Row(
            "timers, losses and gradient norm",
            _instrumentation_seconds(config, examples) / train_seconds * len(batches),
        ),
        Row("stats for the exporter", exporter),
        Row("scrapes", _median_cpu_seconds(_scraper(train_metrics, snapshot)) * _SCRAPES_PER_SECOND),
    ]


def _stream_overheads(examples: Sequence[Example], stage_seconds: float) -> list[Row]:
    """Overheads of a stream process: work per page as a share of the stages' CPU time, periodic work of CPU time."""
    statuses = [_task_status(number) for number in range(_TASKS)]
    with tempfile.TemporaryDirectory() as folder:
        store_stats = _median_cpu_seconds(_make_store(Path(folder, "store"), examples).stats)
    outcomes, batch_durations = Outcomes(), DurationHistogram()
    counts = _median_cpu_seconds(lambda: _counts(outcomes, batch_durations))
    status = _median_cpu_seconds(lambda: [_task_status(number) for number in range(_TASKS)])
    return [
        Row("levels of the pages", _median_cpu_seconds(lambda: count_levels_of_pages(examples)) / stage_seconds),
        Row("counters of a micro-batch", counts * _BATCHES_PER_SECOND * _TASKS),
        Row("RocksDB statistics", store_stats * _STORE_STATS_PER_SECOND * _TASKS),
        Row("task status", status * _STATUS_SAMPLES_PER_SECOND),
        Row("scrapes", _median_cpu_seconds(_scraper(stream_metrics, statuses)) * _SCRAPES_PER_SECOND),
    ]


def _make_examples(pages: int, days: float) -> tuple[list[Example], float]:
    """Examples of a simulated log, and the CPU seconds that the stages took to make them."""
    sink = _CollectingSink()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.jsonl")
        simulate(log, WorldSettings(pages=pages, days=days))
        replay = Replay(
            [str(log)],
            Path(folder, "run"),
            PipelineConfig(partitions=1),
            config={},
            sinks={"keep": sink},
            label=LexicalLabeller(),
            options=RunnerOptions(checkpoint_interval=1e9),
        )
        start = time.process_time()
        replay.run(flush=True)
        return sink.examples, time.process_time() - start


def _train_plain(config: TrainerConfig, examples: Sequence[Example]) -> tuple[list[_ScoredBatch], float]:
    """Scores and sketch of each batch, and the CPU seconds of a plain trainer."""
    batches: list[_ScoredBatch] = []

    def on_scores(scores: BatchScores) -> None:
        scored_pages = scored_pages_of(scores.batch, scores.logits)
        # Every trainer makes the sketch for its own quality metrics, so it is not part of the overhead.
        batches.append(
            (scored_pages, sketch_update(scored_pages.logits, scored_pages.labels, scored_pages.page_starts))
        )

    Trainer(config, on_scores).consume(examples, 0)
    trainer = Trainer(config)
    start = time.process_time()
    trainer.consume(examples, 0)
    return batches, time.process_time() - start


def _add_to_windows(batches: Sequence[_ScoredBatch]) -> WindowBuffer:
    """Add all batches to quality windows as a trainer does, sealing and acknowledging at each checkpoint."""
    windows = WindowBuffer()
    pages = 0
    for batch in batches:
        windows.add(*batch)
        pages += len(batch[0].page_sizes)
        if pages >= _CHECKPOINT_PAGES:
            pages = 0
            windows.acknowledge(windows.seal().pending)
    windows.seal()
    return windows


def _quality_records(batches: Sequence[_ScoredBatch]) -> list[QualityRecord]:
    windows = WindowBuffer()
    for batch in batches:
        windows.add(*batch)
    return [QualityRecord(RECORD_VERSION, "run", 0, "model", 0, window) for window in windows.seal().pending]


def _encode_records(records: Sequence[QualityRecord]) -> list[bytes]:
    return [encode_record(record) for record in records]


def _instrumentation_seconds(config: TrainerConfig, examples: Sequence[Example]) -> float:
    """CPU seconds per batch of the instrumentation around a model that does nothing."""
    trainer = InstrumentedTrainer(replace(config, batch_pages=16))
    timed: Any = trainer._model
    model = timed._model
    batch = trainer._collate(examples[:16])
    forward = model.forward(batch)
    gradients = model.gradients(batch, forward)

    class NullModel:
        def forward(self, batch: Any) -> Any:
            return forward

        def gradients(self, batch: Any, forward: Any) -> Any:
            return gradients

        def step(self, gradients: Any) -> None:
            """Do nothing."""

    timed._model = NullModel()

    def calls() -> None:
        for _ in range(32):
            timed.forward(batch)
            timed.gradients(batch, forward)
            timed.step(gradients)

    return _median_cpu_seconds(calls) / 32


def _exporter_snapshot(trainer: InstrumentedTrainer) -> Any:
    stats = trainer.stats
    status = ModelTrainingStatus(
        phase_seconds=dict(stats.phase_seconds),
        losses=dict(stats.losses),
        batches=stats.batches,
        impressions=stats.impressions,
        gradient_norm=stats.gradient_norm,
        newest_close_time=stats.latest_close,
        learning_rates=learning_rates(trainer.config),
    )
    return train_snapshot(
        {"model": trainer},
        0,
        Path("nowhere"),
        TrainerStatus(
            models={"model": status},
            wait_seconds=0.0,
            latest_watermark=None,
            published_windows=0,
            dropped_windows=0,
            lag=[0] * 4,
            idle_ratio=0.5,
        ),
    )


def _counts(outcomes: Outcomes, durations: DurationHistogram) -> TaskCounts:
    durations.observe(0.02)
    durations.observe(0.05)
    return TaskCounts(outcomes=outcomes + Outcomes(), dead_letters={"json": 1, "future_timestamp": 2}, max_watermark=1)


def _make_store(path: Path, examples: Sequence[Example]) -> Store:
    store = Store(path, StoreOptions(statistics=True))
    store.write({example.request_id.encode(): bytes(example.page) for example in examples})
    return store


def _task_status(number: int) -> TaskStatus:
    durations = DurationHistogram()
    return TaskStatus(
        stage="join",
        partition=number,
        next_offset=1,
        restore_remaining=0,
        emitted=1,
        watermark=1,
        snapshots=SnapshotProgress(created_at=1.0),
        lag=1,
        restore_seconds=1.0,
        batch_durations=durations.buckets(),
        commit_durations=durations.buckets(),
        counts=_counts(Outcomes(), durations),
        store_stats=StoreStats(keys=1, size=1, memory=1),
    )


def _scraper(render: Callable[[Any], Any], snapshot: Any) -> Callable[[], object]:
    class Latest(Collector):
        def collect(self) -> Any:
            yield from render(snapshot)

    registry = CollectorRegistry()
    registry.register(Latest())
    return lambda: generate_latest(registry)


class _ControlTrainer(Trainer):
    """A second plain trainer: its difference from the first is noise, such as the memory location of its tables."""


def _interleaved_overhead(config: TrainerConfig, examples: Sequence[Example]) -> tuple[float, float]:
    """Overhead of an instrumented trainer over a plain one, minus that of a second plain one; and standard error."""
    pages = examples[:_INTERLEAVED_PAGES]
    overheads = [
        _cpu_time_ratio(config, pages, InstrumentedTrainer, number % 2 == 0)
        - _cpu_time_ratio(config, pages, _ControlTrainer, number % 2 == 0)
        for number in range(_ROUNDS)
    ]
    return mean(overheads), stdev(overheads) / _ROUNDS**0.5


def _cpu_time_ratio(
    config: TrainerConfig, examples: Sequence[Example], trainer_class: type[Trainer], first: bool
) -> float:
    """CPU time of a trainer relative to a plain one, alternating every few batches; first: whether it is made first."""
    trainers = [each(config) for each in ((trainer_class, Trainer) if first else (Trainer, trainer_class))]
    pair = trainers if first else trainers[::-1]
    seconds = [0.0, 0.0]
    chunk = _INTERLEAVED_BATCHES * config.batch_pages
    gc.collect()
    gc.disable()
    for number, start in enumerate(range(0, len(examples) - chunk, chunk)):
        # The second one finds the pages in the CPU caches, so the order alternates.
        for which in (0, 1) if number % 2 else (1, 0):
            begun = time.process_time()
            pair[which].consume(examples[start : start + chunk], 0)
            seconds[which] += time.process_time() - begun
    gc.enable()
    return seconds[0] / seconds[1]


def _median_cpu_seconds(act: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Median CPU seconds of a call."""
    act()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        act()
        found.append(time.process_time() - start)
    return median(found)


def _print(result: Result) -> None:
    print("| | share of CPU time |\n|---|---|")
    for name, rows, total in (
        (f"trainer ({result.model})", result.trainer, result.total_trainer),
        ("stream process", result.stream, result.total_stream),
    ):
        for row in rows:
            print(f"| {name}: {row.name} | {100 * row.share:.3f} % |")
        print(f"| **{name}, all** | **{100 * total:.2f} %** (limit 1 %) |")
    overhead, error = 100 * result.interleaved_overhead, 100 * result.interleaved_error
    print(f"| trainer, instrumented against plain, interleaved | {overhead:+.2f} ± {error:.2f} % |")


if __name__ == "__main__":
    typer.run(main)
