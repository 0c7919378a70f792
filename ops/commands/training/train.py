"""`prectr train`: the online trainer of the live system."""

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from prectr.ops.cli.console import Meter, meter
from prectr.ops.cli.kafka_options import Bootstrap, ClientConfig, TopicPrefix, Wait, connection
from prectr.ops.cli.metrics_options import MetricsAddress, MetricsPort, exporter_if_wanted
from prectr.ops.cli.signals import stop_signals
from prectr.ops.settings.loader import load_settings
from prectr.ops.training.failure_marker import SEEN_AFTER, leave_word, wait_to_be_seen
from prectr.state.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from prectr.model.training.instrumentation import WatchedTrainer
    from prectr.ops.metrics.exporter import Exporter
    from prectr.ops.metrics.train import TrainSnapshot
    from prectr.ops.report import Report
    from prectr.ops.training.quality_publisher import QualityFeed
    from prectr.stream.kafka.io.sink_runner import LiveTraining

_log = logging.getLogger(__name__)
_SAY_EVERY: Final = 0.5
"""Seconds between two looks at the figures: to sum up a model's quality takes milliseconds."""


def train(
    bootstrap: Bootstrap,
    run_dir: Annotated[Path, typer.Option(help="Folder for checkpoints and the report.")],
    model: Annotated[
        str | None,
        typer.Option(help="lr, dnn, wide-deep, wide-deep+, prectr or prectr-v2; several with commas share a pass."),
    ] = None,
    batch_pages: Annotated[int | None, typer.Option(help="Pages a training batch.")] = None,
    batch_span: Annotated[
        str | None, typer.Option(help="Event time a training batch spans, such as 60s or 1d.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the weights at the start.")] = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop when the stages have been told to end and all of it is learned.")
    ] = False,
    flush: Annotated[bool, typer.Option("--flush", help="With --until-end: train the last batch too.")] = False,
    cut_every: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints.")] = 30.0,
    metrics_port: MetricsPort = None,
    metrics_address: MetricsAddress = None,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    wait: Wait = 5.0,
    config: Annotated[Path | None, typer.Option(help="Settings, a TOML file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file too, for a program.")] = None,
) -> None:
    """Train on training-examples as they come, each page scored before it is learned from; report on stopping.

    Under torchrun several processes train one model: torchrun --nproc-per-node 2 .venv/bin/prectr train …

    Example: prectr train --bootstrap localhost:9092 --run-dir live --model wide-deep+
    """
    from prectr.model.distributed.process_group import join_ranks  # noqa: PLC0415 (torch takes seconds to import, and --help needs none)
    from prectr.ops.commands.pipeline.replay import show  # noqa: PLC0415
    from prectr.ops.metrics.train import train_metrics  # noqa: PLC0415
    from prectr.ops.report import write_report  # noqa: PLC0415
    from prectr.ops.training.evaluated_sinks import identity, make_report  # noqa: PLC0415
    from prectr.ops.training.quality_publisher import QualityFeed, make_watched  # noqa: PLC0415
    from prectr.stream.kafka.client.topics import Topics, check_topics  # noqa: PLC0415
    from prectr.stream.kafka.io.sink_runner import LiveTraining  # noqa: PLC0415

    if flush and not until_end:
        raise UsageError("--flush goes with --until-end: a log that goes on has no last batch")
    exporter = exporter_if_wanted(train_metrics, metrics_port, metrics_address)
    models = [name.strip() for name in model.split(",") if name.strip()] if model is not None else []
    overrides = {"model": models[0] if models else None, "batch_pages": batch_pages, "batch_span": batch_span}
    settings = load_settings(config, {**overrides, "seed": seed})
    models = models or [settings.trainer.model]
    broker, names = connection(bootstrap, client_config, wait), Topics(topic_prefix)
    pipeline = replace(settings.pipeline, partitions=check_topics(broker, names))
    settings = replace(settings, pipeline=pipeline)
    with ExitStack() as stack:
        ranks = join_ranks(settings.trainer.device)
        if ranks is not None:
            stack.enter_context(ranks)
        leads = ranks is None or ranks.rank == 0
        metrics = stack.enter_context(exporter if leads else nullcontext())
        scored = make_watched(settings.trainer, models, ranks)
        decides = identity(settings, models)
        run = LiveTraining(
            broker,
            names,
            run_dir,
            config=decides,
            sinks=scored,
            cut_every=cut_every,
            peers=ranks,
        )
        stack.callback(run.close)
        feed = QualityFeed(broker, names, scored, run_dir, decides) if leads else None
        if feed is not None:
            stack.callback(feed.close)

        def report() -> tuple["Report", Path]:
            made = make_report(run, scored, settings, dead_letters={}, out_of_order=run.reader.out_of_order)
            return made, write_report(run_dir, made)

        with meter("train", 0) if leads else nullcontext(_Unseen()) as shown, stop_signals() as stop:
            told = _Told(shown, scored, metrics, feed, run_dir)
            try:
                run.run(until_end=until_end, flush=flush, stop=stop, progress=told, on_cut=lambda _: report())
            except TrainingError as error:
                if leads:
                    leave_word(run_dir, error)
                if metrics is not None:
                    told.say(run)
                    _log.warning("%s. Metrics are served for %.0f s more, so that it is seen", error, SEEN_AFTER)
                    wait_to_be_seen(stop)
                raise
            if feed is not None:
                feed.finish()
            told.say(run)
        if not leads:
            return
        last, page = report()
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(last)) + b"\n")
    show(last, page)


class _Told:
    """Tells a meter how far a trainer is, and an exporter, if there is one; keeps its quality published."""

    def __init__(
        self,
        shown: Meter,
        scored: "Mapping[str, WatchedTrainer]",
        metrics: "Exporter[TrainSnapshot] | None",
        feed: "QualityFeed | None",
        run_dir: Path,
    ) -> None:
        self._shown = shown
        self._scored = scored
        self._metrics = metrics
        self._feed = feed
        self._run_dir = run_dir
        self._said = 0.0
        from prectr.ops.metrics.train import Idle  # noqa: PLC0415

        self._idle = Idle()

    def __call__(self, run: "LiveTraining") -> None:
        """Tell it, if it is time; publish what is due."""
        if self._feed is not None:
            self._feed.keep_up()
        if time.monotonic() - self._said >= _SAY_EVERY:
            self.say(run)

    def say(self, run: "LiveTraining") -> None:
        """Tell it now."""
        from prectr.ops.metrics.train import learning_of, train_snapshot  # noqa: PLC0415
        from prectr.ops.training.evaluated_sinks import note  # noqa: PLC0415

        self._said = time.monotonic()
        waiting = f", waiting: {run.waiting}" if run.waiting else ""
        self._shown.update(run.tally.pages, note(run.tally.pages, self._scored) + waiting)
        if self._metrics is not None:
            learning = None if self._feed is None else learning_of(self._scored, run, self._feed, self._idle)
            self._metrics.update(train_snapshot(self._scored, run.reader.out_of_order, self._run_dir, learning))


class _Unseen:
    """A meter that nobody looks at: of a process that is not the first of several."""

    def update(self, done: float, note: str = "") -> None:
        """Nothing is shown."""
