"""Runs a replay with its models, metrics and report: what `prectr replay` and `prectr demo` do."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from prectr.model.quality.baselines import Baselines
from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.signals import stop_signals
from prectr.ops.metrics.replay import PartitionProgress, ReplayMetrics, ReplaySnapshot, serve_metrics
from prectr.ops.report import Report, write_report
from prectr.ops.report.comparison.samples import write_samples
from prectr.ops.report.log.health import FileOrder, LogOrder
from prectr.ops.settings.loader import Settings
from prectr.ops.training.evaluated_sinks import (
    EvaluatedSink,
    make_report,
    make_sinks,
    progress_note,
    run_identity,
    run_samples,
)
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.replay.runner import Replay, RunnerOptions
from prectr.stream.sinks.pending_scores import PendingScores

LATE_RECORDS: Final = 0
"""In a replay no source is ever idle, so no record can be behind the merged watermark."""
_BASELINES: Final = "baselines"
"""The name of the baselines among the sinks."""
_MAX_REPORTED: Final = 20
"""Kinds of dead letters, and files by disorder, in the report."""


def run_replay(
    files: Sequence[str],
    run_dir: Path,
    settings: Settings,
    *,
    models: Sequence[str],
    truth: Path | None = None,
    flush: bool = True,
    options: RunnerOptions = RunnerOptions(),
    metrics_port: int | None = None,
) -> tuple[Report, Path]:
    """Replay `files` into `run_dir` and train each of `models`; returns the report and the path of its page.

    Args:
        files: paths, folders or patterns of logs.
        run_dir: folder for state, checkpoints and the report.
        settings: of the stages and the trainers.
        models: names; they share one pass. None of them: only examples are made.
        truth: true click probabilities of a simulated log, to score the oracle beside the models.
        flush: whether the log is complete: close pending pages and train the last batch.
        options: order of the files, and what does not change the result.
        metrics_port: serve metrics on this port meanwhile.

    Raises:
        PrectrError: the log, the run folder, the settings or the disk do not allow it.
        KeyboardInterrupt: a stop was requested; all progress is in a checkpoint.
    """
    with ExitStack() as stack:
        metrics = None if metrics_port is None else stack.enter_context(serve_metrics(metrics_port))
        scores = None if options.examples is None else PendingScores(models)
        sinks = make_sinks(settings, models, truth, scores)
        baselines = Baselines() if sinks else None
        run = Replay(
            files,
            run_dir,
            settings.pipeline,
            config=run_identity(settings, models, truth),
            sinks=sinks if baselines is None else {**sinks, _BASELINES: baselines},
            label=LexicalLabeller(),
            options=dataclasses.replace(options, scores=scores),
        )
        stack.callback(run.close)
        with progress_bar("replay", run.bytes_total) as bar, stop_signals() as stop:

            def progress(run: Replay) -> None:
                bar.update(run.bytes_read, progress_note(run.pages, sinks))
                if metrics is not None:
                    _update_metrics(metrics, run, sinks)

            if not run.run(flush=flush, progress=progress, stop=stop):
                raise KeyboardInterrupt
        return _write_report(run, run_dir, settings, sinks, baselines)


def _write_report(
    run: Replay,
    run_dir: Path,
    settings: Settings,
    sinks: Mapping[str, EvaluatedSink],
    baselines: Baselines | None,
) -> tuple[Report, Path]:
    if baselines is not None:
        baselines.flush()
    report = make_report(
        run,
        sinks,
        settings,
        dead_letters=run.dead_letters,
        late_records=LATE_RECORDS,
        rejections=run.rejections[:_MAX_REPORTED],
        log_order=_log_order(run),
        baselines=baselines,
    )
    write_samples(run_dir, run_samples(report, sinks, baselines))
    return report, write_report(run_dir, report)


def _log_order(run: Replay) -> LogOrder:
    by_disorder = sorted(run.files, key=lambda file: -file.disorder.behind)[:_MAX_REPORTED]
    total = run.disorder
    return LogOrder(
        total.events,
        total.behind,
        total.share if total.events else None,
        [FileOrder(file.path, file.disorder.events, file.disorder.behind) for file in by_disorder],
        total.ahead,
    )


def _update_metrics(metrics: ReplayMetrics, run: Replay, sinks: Mapping[str, EvaluatedSink]) -> None:
    watermark = run.tasks.watermark
    metrics.update(
        ReplaySnapshot(
            outcomes=run.outcomes,
            dead_letters=dict(run.dead_letters),
            late_records=LATE_RECORDS,
            pages_trained={name: sink.pages_trained for name, sink in sinks.items()},
            quality={name: sink.quality.segments() for name, sink in sinks.items()},
            partitions=_partition_progress(run),
            level_counts=next((sink.quality.level_counts() for sink in sinks.values()), None),
            low_watermark_ms=None if watermark == MIN_WATERMARK else watermark,
        )
    )


def _partition_progress(run: Replay) -> tuple[PartitionProgress, ...]:
    """Watermark lag of each task behind the largest watermark of all tasks."""
    watermarks = run.tasks.watermarks()
    latest = max(watermarks["join"])
    return tuple(
        PartitionProgress(stage=stage, partition=partition, watermark_lag_seconds=(latest - watermark) / 1000)
        for stage, tasks in watermarks.items()
        for partition, watermark in enumerate(tasks)
        if watermark != MIN_WATERMARK
    )
