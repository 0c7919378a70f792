"""`python -m bench.metrics`: what it costs to be watched, as a share of the work that is watched, in one run.

The trainer learns a simulated log; each part of the watching is then timed by itself on the very batches, at the rate
at which it is done, and set beside the CPU time of the learning. A plain trainer and a watched one, a few batches in
turn, check the sum. Of a stream process, what is done for every page is set beside the CPU time of the stages for it,
and what is done now and then beside CPU time itself.
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
from prectr.model.quality.record import VERSION, QualityRecord, encode_record
from prectr.model.quality.scored_pages import Measured, measured
from prectr.model.quality.sketch import Scored, score
from prectr.model.quality.windows import Stretches
from prectr.model.training.instrumentation import WatchedTrainer
from prectr.model.training.trainer import BatchScores, Trainer
from prectr.ops.metrics.stream import stream_metrics
from prectr.ops.metrics.train import Learning, ModelLearning, learning_rates, train_metrics, train_snapshot
from prectr.state.snapshotter import SnapshotProgress
from prectr.state.store import Store, StoreFigures, StoreOptions
from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.tasks.task_metrics import StageCounts, Stopwatch, levels_of
from prectr.stream.kafka.tasks.task_status import TaskFacts
from prectr.stream.records import Example
from prectr.stream.replay.runner import Replay
from prectr.stream.simulator import simulate

_SNAPSHOTS_A_SECOND: Final = 2.0
"""A trainer hands its figures to the exporter every half second."""
_LOOKS_A_SECOND: Final = 5.0
"""A stream process hands over its tasks' facts every fifth of a second."""
_BATCHES_A_SECOND: Final = 10.0
"""Of a task, at most: records are gathered for a tenth of a second."""
_STORES_A_SECOND: Final = 0.1
"""How often a task asks its RocksDB how it does."""
_SCRAPES_A_SECOND: Final = 1 / 15
_CUT_PAGES: Final = 4_096
"""Pages between two checkpoints, where stretches are settled and published."""
_IN_TURN: Final = 8
_IN_TURN_PAGES: Final = 2_500
_ROUNDS: Final = 8
_REPEATS: Final = 50
_TASKS: Final = 8


_Counted = tuple[Measured, Scored]
"""A batch, and its scores as they are counted."""


class Row(msgspec.Struct):
    """A part of the watching, and its share of the CPU time of the work."""

    what: str
    share: float


class Result(msgspec.Struct):
    """trainer, stream: the parts. total_*: their sums, to be below 0.01. in_turn: what a watched trainer takes
    more than a plain one, measured as a whole, and the standard error of that.
    """

    pages: int
    model: str
    microseconds_a_page: float
    stretches: int
    trainer: list[Row]
    stream: list[Row]
    total_trainer: float
    total_stream: float
    in_turn: float
    in_turn_error: float


class _Keep:
    """A sink that keeps every example."""

    def __init__(self) -> None:
        self.examples: list[Example] = []

    def consume(self, examples: Sequence[Example], line: int) -> None:
        self.examples += examples

    def flush(self) -> None:
        """Nothing is held back."""

    def save(self, folder: Path) -> None:
        """Nothing survives the benchmark."""

    def load(self, folder: Path) -> None:
        """Nothing was saved."""


def main(
    pages: Annotated[int, typer.Option(help="Pages to simulate; a two-day log has few in a minute.")] = 12_000,
    days: Annotated[float, typer.Option(help="Event time of the log, in days.")] = 2.0,
    model: Annotated[str, typer.Option(help="What learns; of lr, the fastest, the cost shows most.")] = "wide-deep+",
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
) -> None:
    """Print the cost of metrics and of published quality, as shares of the CPU time of the work."""
    torch.set_num_threads(1)
    examples, staged = _examples(pages, days)
    config = TrainerConfig(model=model, device="cpu", threads=1)
    batches, learning = _learned(config, examples)
    print(f"{len(examples):,} pages, {1e6 * learning / len(examples):.0f} µs of CPU time each", file=sys.stderr)
    watched = WatchedTrainer(config)
    watched.consume(examples[: 64 * config.batch_pages], 0)
    stretches = _stretches(batches)
    trainer = [
        Row("counting stretches", _seconds(lambda: _count(batches), 3) / learning),
        Row("encoding their records", _seconds(lambda: _encoded(stretches), 3) / learning),
        Row("clocks, losses and the gradient's norm", _watching(config, examples) / learning * len(batches)),
        Row("figures for the exporter", _seconds(lambda: _figures(watched)) * _SNAPSHOTS_A_SECOND),
        Row("scrapes", _seconds(_scrape(train_metrics, _figures(watched))) * _SCRAPES_A_SECOND),
    ]
    facts = [_facts(number) for number in range(_TASKS)]
    with tempfile.TemporaryDirectory() as folder:
        asked = _seconds(_store(Path(folder, "store"), examples).figures)
    outcomes, watch = Outcomes(), Stopwatch()
    stream = [
        Row("levels of the pages", _seconds(lambda: levels_of(examples)) / staged),
        Row("counts of a micro-batch", _seconds(lambda: _counts(outcomes, watch)) * _BATCHES_A_SECOND * _TASKS),
        Row("what RocksDB tells", asked * _STORES_A_SECOND * _TASKS),
        Row("facts of the tasks", _seconds(lambda: [_facts(number) for number in range(_TASKS)]) * _LOOKS_A_SECOND),
        Row("scrapes", _seconds(_scrape(stream_metrics, facts)) * _SCRAPES_A_SECOND),
    ]
    in_turn, error = _in_turn(config, examples)
    result = Result(
        pages=len(examples),
        model=model,
        microseconds_a_page=1e6 * learning / len(examples),
        stretches=len(stretches),
        trainer=trainer,
        stream=stream,
        total_trainer=sum(row.share for row in trainer),
        total_stream=sum(row.share for row in stream),
        in_turn=in_turn,
        in_turn_error=error,
    )
    _print(result)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


def _examples(pages: int, days: float) -> tuple[list[Example], float]:
    """The examples of a simulated log, and the CPU seconds in which the stages have made them."""
    keep = _Keep()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.jsonl")
        simulate(log, pages=pages, days=days)
        replay = Replay(
            [str(log)],
            Path(folder, "run"),
            PipelineConfig(partitions=1),
            config={},
            sinks={"keep": keep},
            label=LexicalLabeller(),
            cut_every=1e9,
        )
        begun = time.process_time()
        replay.run(flush=True)
        return keep.examples, time.process_time() - begun


def _learned(config: TrainerConfig, examples: Sequence[Example]) -> tuple[list[_Counted], float]:
    """What was counted of each batch, and the CPU seconds of a plain trainer."""
    batches: list[_Counted] = []

    def keep(scores: BatchScores) -> None:
        counted = measured(scores.batch, scores.logits)
        # A trainer has scored the batch for its quality already.
        batches.append((counted, score(counted.logits, counted.labels, counted.page_starts)))

    Trainer(config, keep).consume(examples, 0)
    trainer = Trainer(config)
    begun = time.process_time()
    trainer.consume(examples, 0)
    return batches, time.process_time() - begun


def _count(batches: Sequence[_Counted]) -> Stretches:
    """Count all batches as a trainer does, and settle at each checkpoint, where all is published at once."""
    stretches = Stretches()
    pages = 0
    for batch in batches:
        stretches.add(*batch)
        pages += len(batch[0].sizes)
        if pages >= _CUT_PAGES:
            pages = 0
            stretches.published(stretches.settle().waiting)
    stretches.settle()
    return stretches


def _stretches(batches: Sequence[_Counted]) -> list[QualityRecord]:
    whole = Stretches()
    for batch in batches:
        whole.add(*batch)
    return [QualityRecord(VERSION, "run", 0, "model", 0, stretch) for stretch in whole.settle().waiting]


def _encoded(records: Sequence[QualityRecord]) -> list[bytes]:
    return [encode_record(record) for record in records]


def _watching(config: TrainerConfig, examples: Sequence[Example]) -> float:
    """CPU seconds a batch of the calls around a model that does nothing."""
    trainer = WatchedTrainer(replace(config, batch_pages=16))
    timed: Any = trainer._model
    real = timed._model
    batch = trainer._encode(examples[:16])
    forward = real.forward(batch)
    gradients = real.gradients(batch, forward)

    class Idle:
        def forward(self, batch: Any) -> Any:
            return forward

        def gradients(self, batch: Any, forward: Any) -> Any:
            return gradients

        def step(self, gradients: Any) -> None:
            """Nothing is learned."""

    timed._model = Idle()

    def calls() -> None:
        for _ in range(32):
            timed.forward(batch)
            timed.gradients(batch, forward)
            timed.step(gradients)

    return _seconds(calls) / 32


def _figures(trainer: WatchedTrainer) -> Any:
    watch = trainer.watch
    learning = ModelLearning(
        seconds=dict(watch.seconds),
        losses=dict(watch.losses),
        batches=watch.batches,
        impressions=watch.impressions,
        gradient_norm=watch.gradient_norm,
        newest=watch.newest,
        rates=learning_rates(trainer.config),
    )
    return train_snapshot(
        {"model": trainer},
        0,
        Path("nowhere"),
        Learning(models={"model": learning}, waited=0.0, heard=None, published=0, dropped=0, lag=[0] * 4, idle=0.5),
    )


def _counts(outcomes: Outcomes, watch: Stopwatch) -> StageCounts:
    watch.add(0.02)
    watch.add(0.05)
    return StageCounts(outcomes=outcomes + Outcomes(), dead_letters={"json": 1, "clock_jump": 2}, heard=1)


def _store(path: Path, examples: Sequence[Example]) -> Store:
    store = Store(path, StoreOptions(counted=True))
    store.write({example.request_id.encode(): bytes(example.page) for example in examples})
    return store


def _facts(number: int) -> TaskFacts:
    watch = Stopwatch()
    return TaskFacts(
        stage="sessions",
        partition=number,
        position=1,
        behind=0,
        emitted=1,
        watermark=1,
        snapshots=SnapshotProgress(created=1.0),
        lag=1,
        restored=1.0,
        batches=watch.durations(),
        transactions=watch.durations(),
        counts=_counts(Outcomes(), watch),
        store=StoreFigures(keys=1, size=1, memory=1),
    )


def _scrape(render: Callable[[Any], Any], snapshot: Any) -> Callable[[], object]:
    class Latest(Collector):
        def collect(self) -> Any:
            yield from render(snapshot)

    registry = CollectorRegistry()
    registry.register(Latest())
    return lambda: generate_latest(registry)


class _Plain(Trainer):
    """A second plain trainer: what it takes more than the first is chance, such as where its tables lie."""


def _in_turn(config: TrainerConfig, examples: Sequence[Example]) -> tuple[float, float]:
    """How much more a watched trainer takes than a plain one, less what a plain one does; and the standard error."""
    pages = examples[:_IN_TURN_PAGES]
    more = [
        _ratio(config, pages, WatchedTrainer, number % 2 == 0) - _ratio(config, pages, _Plain, number % 2 == 0)
        for number in range(_ROUNDS)
    ]
    return mean(more), stdev(more) / _ROUNDS**0.5


def _ratio(config: TrainerConfig, examples: Sequence[Example], kind: type[Trainer], first: bool) -> float:
    """CPU time of a trainer of a kind over that of a plain one, a few batches in turn; `first`: made first."""
    made = [each(config) for each in ((kind, Trainer) if first else (Trainer, kind))]
    pair = made if first else made[::-1]
    seconds = [0.0, 0.0]
    piece = _IN_TURN * config.batch_pages
    gc.collect()
    gc.disable()
    for number, start in enumerate(range(0, len(examples) - piece, piece)):
        # Whoever goes second finds the pages in the caches.
        for which in (0, 1) if number % 2 else (1, 0):
            begun = time.process_time()
            pair[which].consume(examples[start : start + piece], 0)
            seconds[which] += time.process_time() - begun
    gc.enable()
    return seconds[0] / seconds[1]


def _seconds(act: Callable[[], object], repeats: int = _REPEATS) -> float:
    """CPU seconds of a call, the median of some."""
    act()
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        act()
        found.append(time.process_time() - begun)
    return median(found)


def _print(result: Result) -> None:
    print("| | share of CPU time |\n|---|---|")
    for name, rows, total in (
        (f"trainer ({result.model})", result.trainer, result.total_trainer),
        ("stream process", result.stream, result.total_stream),
    ):
        for row in rows:
            print(f"| {name}: {row.what} | {100 * row.share:.3f} % |")
        print(f"| **{name}, all** | **{100 * total:.2f} %** (limit 1 %) |")
    print(
        f"| trainer, watched beside plain, in turn | {100 * result.in_turn:+.2f} ± {100 * result.in_turn_error:.2f} % |"
    )


if __name__ == "__main__":
    typer.run(main)
