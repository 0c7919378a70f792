"""Runs a replay with its models, its metrics and its report: what `prectr replay` and `prectr demo` do."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from prectr.ops.cli.console import meter
from prectr.ops.cli.signals import stop_signals
from prectr.ops.metrics.replay import PartitionProgress, ReplayMetrics, ReplaySnapshot, start_metrics
from prectr.ops.report import Report, write_report
from prectr.ops.settings.loader import Settings
from prectr.ops.training.evaluated_sinks import Scored, identity, make_report, make_scored, note
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.event_clock import BEFORE_TIME
from prectr.stream.replay.runner import Replay

OUT_OF_ORDER: Final = 0
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
    cut_every: float = 30.0,
    metrics_port: int | None = None,
) -> tuple[Report, Path]:
    """Replay `files` into `run_dir` with every one of `models`; returns the report and the path of its page.

    truth: of a simulated log, to score the oracle beside the models.

    Raises:
        PrectrError: whatever the log, the run folder, the configuration or the disk does not allow.
        KeyboardInterrupt: it was asked to stop; everything so far is in a cut.
    """
    with ExitStack() as stack:
        metrics = None if metrics_port is None else stack.enter_context(start_metrics(metrics_port))
        scored = make_scored(settings, models, truth)
        run = Replay(
            files,
            run_dir,
            settings.pipeline,
            config=identity(settings, models, truth),
            sinks=scored,
            label=LexicalLabeller(),
            examples=examples,
            cut_every=cut_every,
            restart=restart,
        )
        stack.callback(run.close)
        with meter("replay", run.bytes_total) as shown, stop_signals() as stop:

            def progress(run: Replay) -> None:
                shown.update(run.bytes_read, note(run.pages, scored))
                if metrics is not None:
                    _export(metrics, run, scored)

            if not run.run(flush=flush, progress=progress, stop=stop):
                raise KeyboardInterrupt
        report = make_report(run, scored, settings, dead_letters=run.dead_letters, out_of_order=OUT_OF_ORDER)
        return report, write_report(run_dir, report)


def _export(metrics: ReplayMetrics, run: Replay, scored: Mapping[str, Scored]) -> None:
    watermark = run.tasks.watermark
    metrics.update(
        ReplaySnapshot(
            outcomes=run.outcomes,
            dead_letters=dict(run.dead_letters),
            out_of_order=OUT_OF_ORDER,
            pages_trained={name: sink.pages_trained for name, sink in scored.items()},
            quality={name: sink.quality.segments() for name, sink in scored.items()},
            partitions=_progress(run),
            levels=next((sink.quality.level_counts() for sink in scored.values()), None),
            event_time_ms=None if watermark == BEFORE_TIME else watermark,
        )
    )


def _progress(run: Replay) -> tuple[PartitionProgress, ...]:
    """Lag of each task behind the largest watermark of all: what holds the line, and by how much."""
    watermarks = run.tasks.watermarks()
    latest = max(watermarks["sessions"])
    return tuple(
        PartitionProgress(stage=stage, partition=partition, watermark_lag_seconds=(latest - watermark) / 1000)
        for stage, tasks in watermarks.items()
        for partition, watermark in enumerate(tasks)
        if watermark != BEFORE_TIME
    )
