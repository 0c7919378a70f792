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

from prectr.ops.cli.console import ProgressBar, progress_bar
from prectr.ops.cli.kafka_options import Bootstrap, ClientConfig, ConnectTimeout, TopicPrefix, connection
from prectr.ops.cli.metrics_options import MetricsAddress, MetricsPort, optional_exporter
from prectr.ops.cli.signals import stop_signals
from prectr.ops.settings.loader import load_settings
from prectr.ops.training.failure_marker import LINGER_SECONDS, linger_for_scrape, write_failure
from prectr.state.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from prectr.model.training.instrumentation import InstrumentedTrainer
    from prectr.ops.metrics.exporter import Exporter
    from prectr.ops.metrics.train import TrainSnapshot
    from prectr.ops.report import Report
    from prectr.ops.training.quality_publisher import QualityPublisher
    from prectr.stream.kafka.io.sink_runner import LiveSinkRunner

_log = logging.getLogger(__name__)
_REPORT_INTERVAL: Final = 0.5
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
    checkpoint_interval: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints.")] = 30.0,
    metrics_port: MetricsPort = None,
    metrics_address: MetricsAddress = None,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    config: Annotated[Path | None, typer.Option(help="Settings, a TOML file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file too, for a program.")] = None,
) -> None:
    """Train on training-examples as they come, each page scored before it is learned from; report on stopping.

    Under torchrun several processes train one model: torchrun --nproc-per-node 2 .venv/bin/prectr train …

    Example: prectr train --bootstrap localhost:9092 --run-dir live --model wide-deep+
    """
    from prectr.model.distributed.process_group import init_process_group  # noqa: PLC0415 (torch takes seconds to import, and --help needs none)
    from prectr.ops.commands.pipeline.replay import print_report  # noqa: PLC0415
    from prectr.ops.metrics.train import train_metrics  # noqa: PLC0415
    from prectr.ops.report import write_report  # noqa: PLC0415
    from prectr.ops.training.evaluated_sinks import make_report, run_identity  # noqa: PLC0415
    from prectr.ops.training.quality_publisher import QualityPublisher, make_trainers  # noqa: PLC0415
    from prectr.stream.kafka.client.topics import Topics, check_topics  # noqa: PLC0415
    from prectr.stream.kafka.io.sink_runner import LiveSinkRunner  # noqa: PLC0415

    if flush and not until_end:
        raise UsageError("--flush goes with --until-end: a log that goes on has no last batch")
    exporter = optional_exporter(train_metrics, metrics_port, metrics_address)
    models = [name.strip() for name in model.split(",") if name.strip()] if model is not None else []
    overrides = {"model": models[0] if models else None, "batch_pages": batch_pages, "batch_span": batch_span}
    settings = load_settings(config, {**overrides, "seed": seed})
    models = models or [settings.trainer.model]
    broker, names = connection(bootstrap, client_config, connect_timeout), Topics(topic_prefix)
    pipeline = replace(settings.pipeline, partitions=check_topics(broker, names))
    settings = replace(settings, pipeline=pipeline)
    with ExitStack() as stack:
        group = init_process_group(settings.trainer.device)
        if group is not None:
            stack.enter_context(group)
        is_leader = group is None or group.rank == 0
        metrics = stack.enter_context(exporter if is_leader else nullcontext())
        sinks = make_trainers(settings.trainer, models, group)
        run_settings = run_identity(settings, models)
        run = LiveSinkRunner(
            broker,
            names,
            run_dir,
            config=run_settings,
            sinks=sinks,
            checkpoint_interval=checkpoint_interval,
            process_group=group,
        )
        stack.callback(run.close)
        publisher = QualityPublisher(broker, names, sinks, run_dir, run_settings) if is_leader else None
        if publisher is not None:
            stack.callback(publisher.close)

        def report() -> tuple["Report", Path]:
            made = make_report(run, sinks, settings, dead_letters={}, late_records=run.reader.late_records)
            return made, write_report(run_dir, made)

        with progress_bar("train", 0) if is_leader else nullcontext(_NullProgress()) as bar, stop_signals() as stop:
            reporter = _ProgressReporter(bar, sinks, metrics, publisher, run_dir)
            try:
                run.run(
                    until_end=until_end, flush=flush, stop=stop, progress=reporter, on_checkpoint=lambda _: report()
                )
            except TrainingError as error:
                if is_leader:
                    write_failure(run_dir, error)
                if metrics is not None:
                    reporter.report(run)
                    _log.warning("%s. Metrics are served for %.0f s more, so that it is seen", error, LINGER_SECONDS)
                    linger_for_scrape(stop)
                raise
            if publisher is not None:
                publisher.flush()
            reporter.report(run)
        if not is_leader:
            return
        final_report, page = report()
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(final_report)) + b"\n")
    print_report(final_report, page)


class _ProgressReporter:
    """Tells a meter how far a trainer is, and an exporter, if there is one; keeps its quality published."""

    def __init__(
        self,
        bar: ProgressBar,
        sinks: "Mapping[str, InstrumentedTrainer]",
        metrics: "Exporter[TrainSnapshot] | None",
        publisher: "QualityPublisher | None",
        run_dir: Path,
    ) -> None:
        self._bar = bar
        self._sinks = sinks
        self._metrics = metrics
        self._publisher = publisher
        self._run_dir = run_dir
        self._reported_at = 0.0
        from prectr.ops.metrics.train import IdleRatio  # noqa: PLC0415

        self._idle_ratio = IdleRatio()

    def __call__(self, run: "LiveSinkRunner") -> None:
        """Tell it, if it is time; publish what is due."""
        if self._publisher is not None:
            self._publisher.poll()
        if time.monotonic() - self._reported_at >= _REPORT_INTERVAL:
            self.report(run)

    def report(self, run: "LiveSinkRunner") -> None:
        """Tell it now."""
        from prectr.ops.metrics.train import train_snapshot, trainer_status  # noqa: PLC0415
        from prectr.ops.training.evaluated_sinks import progress_note  # noqa: PLC0415

        self._reported_at = time.monotonic()
        waiting = f", waiting: {run.waiting_reason}" if run.waiting_reason else ""
        self._bar.update(run.digest.pages, progress_note(run.digest.pages, self._sinks) + waiting)
        if self._metrics is not None:
            status = (
                None if self._publisher is None else trainer_status(self._sinks, run, self._publisher, self._idle_ratio)
            )
            self._metrics.update(train_snapshot(self._sinks, run.reader.late_records, self._run_dir, status))


class _NullProgress:
    """A meter that nobody looks at: of a process that is not the first of several."""

    def update(self, done: float, note: str = "") -> None:
        """Nothing is shown."""
