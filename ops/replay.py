"""Runs a replay with its models, its metrics and its report: what `prectr replay` and `prectr demo` do."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol

import msgspec

from model.oracle import Oracle
from model.quality import Quality
from ops.config import Settings, describe
from ops.console import meter
from ops.interrupt import stop_signals
from ops.metrics import PartitionProgress, ReplayMetrics, ReplaySnapshot, start_metrics
from ops.report import QueryPreference, Report, RunFacts, build_report, model_report, write_report
from state.errors import UsageError
from stream.clock import BEFORE_TIME
from stream.labeller import LexicalLabeller
from stream.replay import Replay
from stream.sink import ExampleSink

BUSIEST: Final = 40
"""Queries whose preferences the report shows."""
ORACLE: Final = "oracle"


class _Scored(ExampleSink, Protocol):
    """A sink whose scores are measured: a trainer, or the oracle, which has no weights."""

    quality: Quality
    pages_trained: int

    def weights_sha256(self) -> str | None:
        """Digest of everything learned."""


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
    """
    if len(set(models)) < len(models):
        raise UsageError(f"--model {','.join(models)}: a model is named twice")
    with ExitStack() as stack:
        metrics = None if metrics_port is None else stack.enter_context(start_metrics(metrics_port))
        scored = _scored(settings, models, truth)
        run = Replay(
            files,
            run_dir,
            settings.pipeline,
            config=_identity(settings, models, truth),
            sinks=scored,
            label=LexicalLabeller(),
            examples=examples,
            cut_every=cut_every,
            restart=restart,
        )
        stack.callback(run.close)
        with meter("replay", run.bytes_total) as shown:

            def progress(run: Replay) -> None:
                shown.update(run.bytes_read, _note(run, scored))
                if metrics is not None:
                    _export(metrics, run, scored)

            with stop_signals() as stop:
                if not run.run(flush=flush, progress=progress, stop=stop):
                    raise KeyboardInterrupt
        report = _report(run, scored, settings, models)
        return report, write_report(run_dir, report)


def _scored(settings: Settings, models: Sequence[str], truth: Path | None) -> Mapping[str, _Scored]:
    scored: dict[str, _Scored] = {}
    if models:
        from model.trainer import Trainer  # noqa: PLC0415 (torch takes seconds to import, and --no-train needs none)

        scored |= {name: Trainer(dataclasses.replace(settings.trainer, model=name)) for name in models}
    if truth is not None:
        scored[ORACLE] = Oracle(truth)
    return scored


def _identity(settings: Settings, models: Sequence[str], truth: Path | None) -> dict[str, str]:
    """Every setting that decides the result, by name, as text."""
    parts = describe(settings) if models else msgspec.to_builtins(settings.pipeline)
    identity = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in parts.items()
    }
    return identity | {"model": ",".join(models) or "none", "truth": str(truth and truth.resolve())}


def _note(run: Replay, scored: Mapping[str, _Scored]) -> str:
    note = f"{run.pages:,} pages"
    for name, sink in scored.items():
        auc = sink.quality.segments()["all"].auc
        if auc is not None:
            note += f", {name} AUC {auc:.4f}"
    return note


def _export(metrics: ReplayMetrics, run: Replay, scored: Mapping[str, _Scored]) -> None:
    watermark = run.tasks.watermark
    metrics.update(
        ReplaySnapshot(
            outcomes=run.outcomes,
            dead_letters=dict(run.dead_letters),
            out_of_order=0,  # no source is ever idle in a replay, so nothing can come behind the line
            pages_trained={name: sink.pages_trained for name, sink in scored.items()},
            quality={name: sink.quality.segments() for name, sink in scored.items()},
            partitions=_progress(run),
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


def _report(run: Replay, scored: Mapping[str, _Scored], settings: Settings, models: Sequence[str]) -> Report:
    facts = RunFacts(
        pages=run.pages,
        impressions=run.tally.impressions,
        outcomes=run.outcomes,
        dead_letters=run.dead_letters,
        out_of_order=0,  # as in the metrics
        busiest_queries=[
            QueryPreference(query=query, impressions=counts[:4], clicks=counts[4:])
            for query, counts in run.busiest.busiest(BUSIEST)
        ],
        examples_sha256=run.tally.examples.hex(),
        aggregates_sha256=run.tally.aggregates.hex(),
        seconds=run.seconds,
        config=describe(settings) | {"model": ",".join(models) or None},
    )
    return build_report(
        facts,
        [model_report(name, sink.quality.summary(), sink.weights_sha256()) for name, sink in scored.items()],
    )
