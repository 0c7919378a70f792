"""Runs the live trainer: what `prectr train` does once its options are read."""

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prectr.model.distributed.process_group import init_process_group
from prectr.model.training.instrumentation import InstrumentedTrainer
from prectr.ops.cli.console import ProgressBar, progress_bar
from prectr.ops.cli.signals import stop_signals
from prectr.ops.limits.check import check_limits
from prectr.ops.limits.needs import process_needs
from prectr.ops.metrics.exporter import Exporter
from prectr.ops.metrics.train import IdleRatio, TrainSnapshot, train_snapshot, trainer_status
from prectr.ops.report import Report, write_report
from prectr.ops.report.comparison.samples import write_samples
from prectr.ops.settings.loader import Settings
from prectr.ops.training.evaluated_sinks import make_report, progress_note, run_identity, run_samples
from prectr.ops.training.failure_marker import LINGER_SECONDS, linger_for_scrape, write_failure
from prectr.ops.training.quality_publisher import QualityPublisher, make_trainers
from prectr.state.errors import TrainingError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.sink_runner import LiveSinkRunner

_REPORT_INTERVAL: Final = 0.5
"""Seconds between two status updates: summarising a model's quality takes milliseconds."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTraining:
    """What the live trainer trains, from where, and until when.

    models: names; they share one pass. flush: with `until_end`, also train the last, incomplete batch.
    checkpoint_interval: seconds.
    """

    connection: Connection
    topics: Topics
    run_dir: Path
    settings: Settings
    models: list[str]
    until_end: bool = False
    flush: bool = False
    checkpoint_interval: float = 30.0


def run_training(
    training: LiveTraining, exporter: AbstractContextManager[Exporter[TrainSnapshot] | None]
) -> tuple[Report, Path] | None:
    """Train until asked to stop or until the end of the topic; returns the report and the path of its page.

    Under torchrun only the process of rank 0 publishes quality, serves metrics and returns a report; others return
    None.

    Raises:
        TrainingError: a loss is not finite; a failure marker is left in the run folder.
        PrectrError: the broker, the topics or the run folder do not allow it.
    """
    settings = training.settings
    with ExitStack() as stack:
        group = init_process_group(settings.trainer.device)
        if group is not None:
            stack.enter_context(group)
        is_leader = group is None or group.rank == 0
        # The others have no run folder: they are sent what they resume from.
        check_limits(process_needs({"run folder": training.run_dir} if is_leader else {}))
        metrics = stack.enter_context(exporter if is_leader else nullcontext())
        trainers = make_trainers(settings.trainer, training.models, group)
        identity = run_identity(settings, training.models)
        runner = LiveSinkRunner(
            training.connection,
            training.topics,
            training.run_dir,
            config=identity,
            sinks=trainers,
            checkpoint_interval=training.checkpoint_interval,
            process_group=group,
        )
        stack.callback(runner.close)
        publisher = None
        if is_leader:
            publisher = QualityPublisher(training.connection, training.topics, trainers, training.run_dir, identity)
            stack.callback(publisher.close)
        bar = stack.enter_context(progress_bar("train", 0)) if is_leader else _NullProgress()
        reporter = _ProgressReporter(bar, trainers, metrics, publisher, training.run_dir)
        _train(training, runner, reporter)
        return reporter.write_report(runner, settings) if is_leader else None


def _train(training: LiveTraining, runner: LiveSinkRunner, reporter: "_ProgressReporter") -> None:
    with stop_signals() as stop:
        try:
            runner.run(
                until_end=training.until_end,
                flush=training.flush,
                stop=stop,
                progress=reporter,
                on_checkpoint=lambda _: reporter.write_report(runner, training.settings),
            )
        except TrainingError as error:
            if reporter.publisher is not None:
                write_failure(training.run_dir, error)
            if reporter.metrics is not None:
                reporter.report(runner)
                _log.warning("%s. Serving metrics for %.0f s more, so that they are scraped", error, LINGER_SECONDS)
                linger_for_scrape(stop)
            raise
        if reporter.publisher is not None:
            reporter.publisher.flush()
        reporter.report(runner)


class _ProgressReporter:
    """Updates the progress bar and the metrics of a trainer, and keeps its quality published."""

    def __init__(
        self,
        bar: ProgressBar,
        trainers: Mapping[str, InstrumentedTrainer],
        metrics: Exporter[TrainSnapshot] | None,
        publisher: QualityPublisher | None,
        run_dir: Path,
    ) -> None:
        self.metrics = metrics
        self.publisher = publisher
        self._bar = bar
        self._trainers = trainers
        self._run_dir = run_dir
        self._reported_at = 0.0
        self._idle_ratio = IdleRatio()

    def __call__(self, runner: LiveSinkRunner) -> None:
        """Publish pending quality; report if it is time."""
        if self.publisher is not None:
            self.publisher.poll()
        if time.monotonic() - self._reported_at >= _REPORT_INTERVAL:
            self.report(runner)

    def report(self, runner: LiveSinkRunner) -> None:
        """Update the progress bar and the metrics now."""
        self._reported_at = time.monotonic()
        waiting = f", waiting: {runner.waiting_reason}" if runner.waiting_reason else ""
        self._bar.update(runner.digest.pages, progress_note(runner.digest.pages, self._trainers) + waiting)
        if self.metrics is None:
            return
        status = None
        if self.publisher is not None:
            status = trainer_status(self._trainers, runner, self.publisher, self._idle_ratio)
        self.metrics.update(train_snapshot(self._trainers, runner.reader.late_records, self._run_dir, status))

    def write_report(self, runner: LiveSinkRunner, settings: Settings) -> tuple[Report, Path]:
        """Write the report of the run so far; returns it and the path of its page."""
        report = make_report(runner, self._trainers, settings, dead_letters={}, late_records=runner.reader.late_records)
        write_samples(self._run_dir, run_samples(report, self._trainers))
        return report, write_report(self._run_dir, report)


class _NullProgress:
    """The progress bar of a process that shows none: of a rank other than 0."""

    def update(self, done: float, note: str = "") -> None:
        """Show nothing."""
