"""The models of a run, replayed or live: made from the settings, told of in a line, and written into its report."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from prectr.model.quality.oracle import Oracle
from prectr.model.quality.quality import Quality
from prectr.ops.report import QueryPreference, Report, RunFacts, build_report, model_report
from prectr.ops.report.levels import LevelReport, level_report
from prectr.ops.settings.loader import Settings, describe
from prectr.state.errors import UsageError
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.sinks.example_sink import ExampleSink
from prectr.stream.sinks.run_digest import Tally
from prectr.stream.sinks.top_queries import BusiestQueries

if TYPE_CHECKING:
    from prectr.model.distributed.process_group import Ranks
    from prectr.model.quality.explanation import Explained
    from prectr.stream.records import Example

BUSIEST: Final = 40
"""Queries whose preferences the report shows."""
ORACLE: Final = "oracle"


class Scored(ExampleSink, Protocol):
    """A sink whose scores are measured: a trainer, or the oracle, which has no weights."""

    quality: Quality
    pages_trained: int

    def weights_sha256(self) -> str | None:
        """Digest of everything learned."""

    def explain_newest(self) -> "tuple[Sequence[Example], Explained] | None":
        """The newest pages learned from, and what is said of them; None where no relevance is inferred."""


class Run(Protocol):
    """What a report asks of a run."""

    tally: Tally
    busiest: BusiestQueries

    @property
    def outcomes(self) -> Outcomes:
        """How every record ended."""

    @property
    def seconds(self) -> float:
        """Wall time spent."""


def make_scored(
    settings: Settings, models: Sequence[str], truth: Path | None = None, ranks: "Ranks | None" = None
) -> Mapping[str, Scored]:
    """A trainer for each model and, where there is a truth, the oracle.

    ranks: the processes that train the models together.

    Raises:
        UsageError: a model is named twice, or there is none of that name.
    """
    if len(set(models)) < len(models):
        raise UsageError(f"--model {','.join(models)}: a model is named twice")
    scored: dict[str, Scored] = {}
    if models:
        from prectr.model.training.trainer import Trainer  # noqa: PLC0415 (torch takes seconds to import, and --no-train needs none)

        scored |= {name: Trainer(dataclasses.replace(settings.trainer, model=name), ranks=ranks) for name in models}
    if truth is not None:
        scored[ORACLE] = Oracle(truth)
    return scored


def identity(settings: Settings, models: Sequence[str], truth: Path | None = None) -> dict[str, str]:
    """Every setting that decides the result, by name, as text."""
    parts = describe(settings) if models else msgspec.to_builtins(settings.pipeline)
    named = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in parts.items()
    }
    return named | {"model": ",".join(models) or "none", "truth": str(truth and truth.resolve())}


def note(pages: int, scored: Mapping[str, Scored]) -> str:
    """How far a run is, in a line."""
    text = f"{pages:,} pages"
    for name, sink in scored.items():
        whole = sink.quality.segments()["all"]
        if whole.auc is not None and whole.gauc is not None:
            text += f", {name} AUC {whole.auc:.4f} GAUC {whole.gauc:.4f}"
    return text


def make_report(
    run: Run,
    scored: Mapping[str, Scored],
    settings: Settings,
    *,
    dead_letters: Mapping[str, int],
    out_of_order: int,
) -> Report:
    """The report of a run. dead_letters: by reason. out_of_order: records behind the line."""
    facts = RunFacts(
        pages=run.tally.pages,
        impressions=run.tally.impressions,
        outcomes=run.outcomes,
        dead_letters=dict(dead_letters),
        out_of_order=out_of_order,
        busiest_queries=[
            QueryPreference(query=query, impressions=counts[:4], clicks=counts[4:])
            for query, counts in run.busiest.busiest(BUSIEST)
        ],
        examples_sha256=run.tally.examples.hex(),
        aggregates_sha256=run.tally.aggregates.hex(),
        seconds=run.seconds,
        config=describe(settings) | {"model": ",".join(name for name in scored if name != ORACLE) or None},
    )
    return build_report(
        facts,
        [
            model_report(name, sink.quality.summary(), sink.weights_sha256(), _inferred_levels(sink))
            for name, sink in scored.items()
        ],
    )


def _inferred_levels(sink: Scored) -> LevelReport | None:
    newest = sink.explain_newest()
    return None if newest is None else level_report(*newest)
