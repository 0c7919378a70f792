"""Runs a replay with its models, its metrics and its report: what `prectr replay` and `prectr demo` do."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.signals import stop_signals
from prectr.ops.metrics.replay import PartitionProgress, ReplayMetrics, ReplaySnapshot, serve_metrics
from prectr.ops.report import Report, write_report
from prectr.ops.settings.loader import Settings
from prectr.ops.training.evaluated_sinks import EvaluatedSink, make_report, make_sinks, progress_note, run_identity
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.replay.runner import Replay, ReplayOptions

LATE_RECORDS: Final = 0
"""No source is ever idle in a replay, so nothing can come behind the line."""


def run_replay(
    files: Sequence[str],
    run_dir: Path,
    settings: Settings,
    *,
    models: Sequence[str],
    truth: Path | None = None,
    flush: bool = True,
    examples: Path | None = None,
    restart: bool = False,
    checkpoint_interval: float = 30.0,
    metrics_port: int | None = None,
) -> tuple[Report, Path]:
    """Replay `files` into `run_dir` with every one of `models`; returns the report and the path of its page.

    truth: of a simulated log, to score the oracle beside the models.

    Raises:
        PrectrError: whatever the log, the run folder, the configuration or the disk does not allow.
        KeyboardInterrupt: it was asked to stop; everything so far is in a cut.
    """
    with ExitStack() as stack:
        metrics = None if metrics_port is None else stack.enter_context(serve_metrics(metrics_port))
        sinks = make_sinks(settings, models, truth)
        run = Replay(
            files,
            run_dir,
            settings.pipeline,
            config=run_identity(settings, models, truth),
            sinks=sinks,
            label=LexicalLabeller(),
            options=ReplayOptions(examples=examples, checkpoint_interval=checkpoint_interval, restart=restart),
        )
        stack.callback(run.close)
        with progress_bar("replay", run.bytes_total) as bar, stop_signals() as stop:

            def progress(run: Replay) -> None:
                bar.update(run.bytes_read, progress_note(run.pages, sinks))
                if metrics is not None:
                    _update_metrics(metrics, run, sinks)

            if not run.run(flush=flush, progress=progress, stop=stop):
                raise KeyboardInterrupt
        report = make_report(run, sinks, settings, dead_letters=run.dead_letters, late_records=LATE_RECORDS)
        return report, write_report(run_dir, report)


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
    """Lag of each task behind the largest watermark of all: what holds the line, and by how much."""
    watermarks = run.tasks.watermarks()
    latest = max(watermarks["join"])
    return tuple(
        PartitionProgress(stage=stage, partition=partition, watermark_lag_seconds=(latest - watermark) / 1000)
        for stage, tasks in watermarks.items()
        for partition, watermark in enumerate(tasks)
        if watermark != MIN_WATERMARK
    )
