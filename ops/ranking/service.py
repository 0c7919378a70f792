"""Ranks with a run: the trainer of its newest checkpoint, and the state of the stages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from prectr.model.config import TrainerConfig
from prectr.model.quality.explanation import Explanation, concat
from prectr.model.training.checkpoint_files import HEADER, read_config
from prectr.model.training.trainer import Trainer
from prectr.ops.cli.console import progress_bar
from prectr.ops.ranking.features import feature_notes
from prectr.ops.ranking.result import Ranking, RelevanceSource, candidate_notes, preference, rank_items
from prectr.ops.settings.loader import Settings, load_settings
from prectr.ops.training.evaluated_sinks import read_pipeline_settings
from prectr.state.errors import CheckpointError, StateError, UsageError
from prectr.state.identity import config_diff
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Item
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.events.query_key import normalise_query
from prectr.stream.records import Example, decode_query_clicks
from prectr.stream.replay.run_checkpoint import list_checkpoints, read_manifest
from prectr.stream.serving.point_in_time import MAX_ITEMS, RankingRequest, TaskStores, request_examples

_MAX_ATTEMPTS: Final = 3
_FREE_SETTINGS: Final = frozenset({"device", "model"})
"""Settings that may differ from those of the run: the device, and which of its models."""


class _CheckpointConfig(msgspec.Struct, kw_only=True):
    """What the checkpoints of a replay and of a live run have in common."""

    config: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankQuery:
    """What to rank for whom.

    as_of: ms since the epoch; None for the newest event in the state. features, context: custom features of the page.
    """

    query: str
    user_id: str
    items: Sequence[Item]
    position: int = 1
    as_of: int | None = None
    features: dict[str, float | str] | None = None
    context: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRef:
    """A run to rank with.

    state_dirs: of the stages of a live system. model: of the run, if it has several. without, config: settings that
    must equal those of the run.
    """

    run_dir: Path
    state_dirs: Sequence[Path] = ()
    model: str | None = None
    without: str | None = None
    config: Path | None = None


class RunRanker:
    """Ranks candidates with the newest checkpoint of a run, opened once."""

    def __init__(self, run_ref: RunRef) -> None:
        """Open the run.

        Raises:
            UsageError: a setting differs from that of the run, or the state folders must be given.
            CheckpointError, StateError: there is no checkpoint or state, or it is corrupt or of another system.
        """
        self._run_ref = run_ref
        self._run = _open_newest(run_ref)

    def rank(self, rank_query: RankQuery) -> Ranking:
        """Rank the candidates of a query; raises what opening the run raises."""
        try:
            return self._run.rank(rank_query)
        except (CheckpointError, StateError):
            # An active run prunes all but its newest two checkpoints, possibly this one.
            if self._run.checkpoint_dir in list_checkpoints(self._run_ref.run_dir / "checkpoints"):
                raise
        self._run = _open_newest(self._run_ref)
        return self._run.rank(rank_query)


def _open_newest(run_ref: RunRef) -> "_OpenRun":
    for _ in range(_MAX_ATTEMPTS):
        checkpoints = list_checkpoints(run_ref.run_dir / "checkpoints")
        if not checkpoints:
            break
        try:
            trainer, folder, pipeline = _open_trainer(run_ref, checkpoints[0])
            stores = _open_stores(run_ref, checkpoints[0])
            return _OpenRun(run_ref.run_dir, checkpoints[0], folder, trainer, stores.config or pipeline, stores)
        except (CheckpointError, StateError):
            # An active run prunes all but its newest two checkpoints, possibly the one being read.
            if checkpoints[0] in list_checkpoints(run_ref.run_dir / "checkpoints"):
                raise
    raise CheckpointError(f"{run_ref.run_dir}: has no checkpoint: use the --run-dir of prectr replay, train or run")


@dataclass(frozen=True, slots=True)
class _OpenRun:
    """One checkpoint of a run. folder: the trainer's in it."""

    run_dir: Path
    checkpoint_dir: Path
    folder: Path
    trainer: Trainer
    pipeline: PipelineConfig
    stores: TaskStores

    def rank(self, rank_query: RankQuery) -> Ranking:
        as_of = self.stores.max_event_time if rank_query.as_of is None else rank_query.as_of
        if as_of is None:
            raise StateError(
                f"{self.run_dir}: the stages have processed no event yet: set the time to rank at with --as-of"
            )
        query = normalise_query(rank_query.query)
        request = RankingRequest(
            rank_query.query,
            rank_query.user_id,
            as_of,
            self.stores.user(rank_query.user_id, as_of, self.pipeline),
            self.stores.query(query, as_of, self.pipeline),
            rank_query.features,
            rank_query.context,
        )
        examples = request_examples(request, rank_query.items, self.pipeline, LexicalLabeller())
        explanation = _explain(self.trainer, examples, rank_query.position)
        infers_levels = self.trainer.config.infers_levels
        sources: list[RelevanceSource] = [
            "inferred" if infers_levels else "labelled" if item.relevance is None else "given"
            for item in rank_query.items
        ]
        rates = explanation.rates
        complete_up_to = self.stores.complete_up_to(query, self.pipeline)
        return Ranking(
            query=query,
            user_id=rank_query.user_id,
            position=rank_query.position,
            as_of=as_of,
            complete_up_to=complete_up_to,
            model=self.trainer.config.model,
            without=list(self.trainer.config.without),
            checkpoint=str(self.folder),
            pages_trained=self.trainer.pages_trained,
            user_preference=preference(
                rank_query.user_id,
                known=request.user_features.known,
                stats=request.user_features.stats,
                rates=rates.user,
                prior_rates=rates.category,
                past_clicks=request.user_features.activity,
            ),
            query_preference=preference(
                query,
                known=request.query_features.known,
                stats=request.query_features.stats,
                rates=rates.query,
                prior_rates=rates.category,
                past_clicks=len(decode_query_clicks(request.query_features.clicks)),
            ),
            candidates=len(rank_query.items),
            ranked=rank_items(rank_query.items, explanation, sources),
            notes=[
                *_notes(request, query, complete_up_to, self.pipeline),
                *candidate_notes(rank_query.items, sources, explanation),
                *feature_notes(examples, self.trainer.features_summary()),
            ],
        )


def _explain(trainer: Trainer, examples: Sequence[Example], position: int) -> Explanation:
    if len(examples) == 1:
        return trainer.explain(examples, position)
    parts = []
    with progress_bar("rank", len(examples)) as bar:
        for done, example in enumerate(examples, 1):
            parts.append(trainer.explain([example], position))
            bar.update(done, f"{done * MAX_ITEMS:,} candidates")
    return concat(parts)


def _notes(request: RankingRequest, query: str, complete_up_to: int | None, pipeline: PipelineConfig) -> list[str]:
    notes = []
    if not request.user_features.known:
        notes.append(f"user {request.user_id!r} is unknown: ranked as a new one")
    if not query:
        notes.append("the query is empty")
    if not request.query_features.known:
        notes.append(f"query {query!r} is unknown: ranked as a new one")
    lag = 0.0 if complete_up_to is None else (request.ts - complete_up_to) / 1000
    if lag > pipeline.attribution_window:
        notes.append(
            f"pages of the query that closed in the last {lag:,.0f} s are not counted: the stages lag behind the time "
            "of the ranking"
        )
    return notes


def _open_trainer(run_ref: RunRef, checkpoint_dir: Path) -> tuple[Trainer, Path, PipelineConfig]:
    """Restore the trainer; returns it, its folder in the checkpoint, and the stages' settings of the run."""
    config = read_manifest(checkpoint_dir, _CheckpointConfig).config
    models = [
        name for name in config.get("model", "").split(",") if (checkpoint_dir / "sinks" / name / HEADER).exists()
    ]
    if not models:
        raise CheckpointError(f"{run_ref.run_dir}: the run has no model: replay the log without --no-train")
    given = load_settings(run_ref.config, {"model": run_ref.model, "without": run_ref.without})
    names = frozenset(given.sources)
    model = given.trainer.model if "model" in names else models[0]
    if model not in models:
        raise UsageError(f"model {model!r}: the run in {run_ref.run_dir} has trained {', '.join(models)}")
    folder = checkpoint_dir / "sinks" / model
    pipeline = read_pipeline_settings(config)
    trained = read_config(folder)
    _check_settings(names - _FREE_SETTINGS, given, Settings(pipeline=pipeline, trainer=trained), folder)
    device = given.trainer.device if "device" in names else TrainerConfig().device
    trainer = Trainer(replace(trained, device=device))
    trainer.load(folder)
    return trainer, folder, pipeline


def _check_settings(names: frozenset[str], given: Settings, run: Settings, folder: Path) -> None:
    """Raise UsageError if a given setting differs from that of the run."""
    wanted, has = {}, {}
    for given_part, run_part in ((given.pipeline, run.pipeline), (given.trainer, run.trainer)):
        for name in names:
            if hasattr(given_part, name) and _comparable(getattr(given_part, name)) != _comparable(
                getattr(run_part, name)
            ):
                wanted[name], has[name] = getattr(given_part, name), getattr(run_part, name)
    if different := config_diff(wanted, has):
        raise UsageError(
            f"checkpoint {folder} was trained with other settings: {different}. Omit them (the "
            "checkpoint has its own), or use the --run-dir of a run with these"
        )


def _comparable(value: object) -> object:
    return frozenset(value) if isinstance(value, tuple) and all(isinstance(part, str) for part in value) else value


def _open_stores(run_ref: RunRef, checkpoint_dir: Path) -> TaskStores:
    """Open the state of the stages: the given folders, that in the checkpoint of a replay, or that of `prectr run`."""
    if run_ref.state_dirs:
        return TaskStores(run_ref.state_dirs)
    for folder in (checkpoint_dir / "state", run_ref.run_dir / "state"):
        if folder.is_dir():
            return TaskStores([folder])
    raise UsageError(
        f"{run_ref.run_dir} belongs to prectr train, without the state of the stages: give the state folder of every "
        "prectr stream worker with --state-dir"
    )
