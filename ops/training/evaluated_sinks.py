"""The models of a run, replayed or live: created from the settings, and summarised in its report."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import numpy as np

from prectr.model.config import TrainerConfig
from prectr.model.features.feature_summary import FeaturesSummary
from prectr.model.quality.baselines import LOGGED_ORDER, POSITION, Baselines
from prectr.model.quality.counterfactual.propensities import Propensities
from prectr.model.quality.counterfactual.reranking import Reranking
from prectr.model.quality.learning_trend import learning_trend
from prectr.model.quality.oracle import Oracle
from prectr.model.quality.paired import ModelSample, paired_differences, sample_of
from prectr.model.quality.quality import Quality, TimelinePoint
from prectr.model.quality.query_losses import QueryLosses
from prectr.model.quality.resamples import Resamples
from prectr.ops.report import ModelReport, QueryPreference, Report, RunSummary, build_report, model_report
from prectr.ops.report.comparison.baselines import baseline_reports
from prectr.ops.report.comparison.samples import RunSamples
from prectr.ops.report.levels import LevelReport, level_report
from prectr.ops.report.log.health import LogOrder
from prectr.ops.settings.loader import Settings, describe
from prectr.state.errors import UsageError
from prectr.state.setting import fields_of
from prectr.stream.config import PipelineConfig
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.replay.rejections import RejectionKind
from prectr.stream.sinks.example_sink import ExampleSink
from prectr.stream.sinks.pending_scores import PendingScores
from prectr.stream.sinks.run_digest import RunDigest
from prectr.stream.sinks.top_queries import TopQueries

if TYPE_CHECKING:
    from prectr.model.quality.explanation import Explanation
    from prectr.model.training.trainer import BatchScores
    from prectr.stream.records import Example

TOP_QUERY_COUNT: Final = 40
"""Number of queries whose preferences are in the report."""
RANKED_QUERY_COUNT: Final = 20
"""Number of queries that lose the most, and that are ranked worst, in the report."""
ORACLE: Final = "oracle"


class EvaluatedSink(ExampleSink, Protocol):
    """A sink that scores pages and measures the quality: a trainer, or the oracle, which has no weights."""

    quality: Quality
    resamples: Resamples
    pages_trained: int

    @property
    def query_losses(self) -> QueryLosses | None:
        """The queries with the most lost; None for the oracle."""

    @property
    def reranking(self) -> Reranking | None:
        """Where clicks would be in the model's order; None for the oracle."""

    def weights_sha256(self) -> str | None:
        """Digest of all weights and training state; None for the oracle."""

    def explain_newest(self) -> "tuple[Sequence[Example], Explanation] | None":
        """The newest trained pages and their explanation; None if relevance is not inferred."""

    def features_summary(self) -> FeaturesSummary | None:
        """The custom features read so far, and their importance; None for the oracle."""


class ReportedRun(Protocol):
    """What a report needs of a run."""

    digest: RunDigest
    top_queries: TopQueries

    @property
    def outcomes(self) -> Outcomes:
        """Outcomes of all records."""

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run, in seconds."""


def trainer_configs(config: TrainerConfig, models: Sequence[str]) -> dict[str, TrainerConfig]:
    """The configuration of each model, by name; raises UsageError if one is named twice."""
    if len(set(models)) < len(models):
        raise UsageError(f"--model {','.join(models)}: a model is named twice")
    return {name: dataclasses.replace(config, model=name) for name in models}


def make_sinks(
    settings: Settings, models: Sequence[str], truth: Path | None = None, scores: PendingScores | None = None
) -> Mapping[str, EvaluatedSink]:
    """Create a trainer for each model and, if there is a truth, the oracle.

    Args:
        settings: of the stages and the trainers.
        models: names.
        truth: file of true click probabilities of a simulated log.
        scores: receives the scores of the models, from before they learned from a page.

    Raises:
        UsageError: a model is named twice or unknown.
    """
    sinks: dict[str, EvaluatedSink] = {}
    if models:
        from prectr.model.training.trainer import Trainer  # noqa: PLC0415 (torch takes seconds to import, and --no-train needs none)

        sinks |= {
            name: Trainer(config, None if scores is None else _score_recorder(name, scores))
            for name, config in trainer_configs(settings.trainer, models).items()
        }
    if truth is not None:
        sinks[ORACLE] = Oracle(truth)
    return sinks


def _score_recorder(model: str, scores: PendingScores) -> "Callable[[BatchScores], None]":
    """Return a function that hands the scores of the model's batches on."""
    from prectr.model.quality.explanation import sigmoid  # noqa: PLC0415 (it imports torch)

    def record(scored: "BatchScores") -> None:
        probabilities = sigmoid(scored.logits)
        scores.add(model, [page.tolist() for page in np.split(probabilities, scored.batch.page_starts[1:-1])])

    return record


def run_identity(settings: Settings, models: Sequence[str], truth: Path | None = None) -> dict[str, str]:
    """All settings that the result depends on, by name, as text."""
    settings_dict = describe(settings) if models else msgspec.to_builtins(settings.pipeline)
    named = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in settings_dict.items()
    }
    return named | {"model": ",".join(models) or "none", "truth": str(truth and truth.resolve())}


def read_pipeline_settings(identity: Mapping[str, str]) -> PipelineConfig:
    """The settings of the stages in a `run_identity`."""
    values = {
        name: identity[name] if isinstance(field.default, str) else msgspec.json.decode(identity[name])
        for name, field in fields_of(PipelineConfig).items()
    }
    return msgspec.convert(values, PipelineConfig)


def progress_note(pages: int, sinks: Mapping[str, EvaluatedSink]) -> str:
    """The progress of a run as one line."""
    text = f"{pages:,} pages"
    for name, sink in sinks.items():
        overall = sink.quality.segments()["all"]
        if overall.auc is not None and overall.gauc is not None:
            text += f", {name} AUC {overall.auc:.4f} GAUC {overall.gauc:.4f}"
    return text


def make_report(
    run: ReportedRun,
    sinks: Mapping[str, EvaluatedSink],
    settings: Settings,
    *,
    dead_letters: Mapping[str, int],
    late_records: int,
    rejections: Sequence[RejectionKind] = (),
    log_order: LogOrder | None = None,
    baselines: Baselines | None = None,
) -> Report:
    """Build the report of a run.

    Args:
        dead_letters: by reason.
        late_records: records behind the merged watermark.
        rejections: kinds of dead letters, the most frequent first.
        log_order: how the log runs in time, if it is known.
        baselines: of the same pages, if there are any.
    """
    summary = RunSummary(
        pages=run.digest.pages,
        impressions=run.digest.impressions,
        outcomes=run.outcomes,
        dead_letters=dict(dead_letters),
        late_records=late_records,
        rejections=list(rejections),
        log_order=log_order,
        top_queries=[
            QueryPreference(query=query, impressions=counts[:4], clicks=counts[4:])
            for query, counts in run.top_queries.top(TOP_QUERY_COUNT)
        ],
        examples_sha256=run.digest.examples.hex(),
        aggregates_sha256=run.digest.aggregates.hex(),
        seconds=run.seconds,
        config=describe(settings) | {"model": ",".join(name for name in sinks if name != ORACLE) or None},
        baselines=[] if baselines is None else baseline_reports(baselines),
        differences=paired_differences(samples_of(sinks, baselines)),
    )
    position = None if baselines is None else baselines.quality[POSITION].summary().timeline
    propensities = None if baselines is None else baselines.position_pairs.propensities()
    return build_report(summary, [_model_report(name, sink, position, propensities) for name, sink in sinks.items()])


def samples_of(sinks: Mapping[str, EvaluatedSink], baselines: Baselines | None) -> list[ModelSample]:
    """The metrics of all models, then of the baselines, with their bootstrap replicates."""
    models = [sample_of(name, sink.quality, sink.resamples) for name, sink in sinks.items()]
    if baselines is None:
        return models
    return models + [
        sample_of(name, quality, baselines.resamples[name], is_probability=name != LOGGED_ORDER)
        for name, quality in baselines.quality.items()
    ]


def run_samples(report: Report, sinks: Mapping[str, EvaluatedSink], baselines: Baselines | None = None) -> RunSamples:
    """What a run keeps to be compared with another one."""
    return RunSamples(examples_sha256=report.examples_sha256, config=report.config, models=samples_of(sinks, baselines))


def _model_report(
    name: str, sink: EvaluatedSink, position: Sequence[TimelinePoint] | None, propensities: Propensities | None
) -> ModelReport:
    summary = sink.quality.summary()
    losses = sink.query_losses
    return msgspec.structs.replace(
        model_report(name, summary, sink.weights_sha256(), _inferred_levels(sink), sink.features_summary()),
        most_lost=() if losses is None else tuple(losses.most_lost(RANKED_QUERY_COUNT)),
        worst_queries=() if losses is None else tuple(losses.worst(RANKED_QUERY_COUNT)),
        trend=learning_trend(summary.timeline, position),
        reranked=None if sink.reranking is None or propensities is None else sink.reranking.estimate(propensities),
    )


def _inferred_levels(sink: EvaluatedSink) -> LevelReport | None:
    newest = sink.explain_newest()
    return None if newest is None else level_report(*newest)
