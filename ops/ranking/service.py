"""A run, opened to rank by: the newest checkpoint's trainer, and the state of the stages that feed it."""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from prectr.model.config import TrainerConfig
from prectr.model.quality.explanation import Explanation, concat
from prectr.model.training import checkpoint
from prectr.model.training.trainer import Trainer
from prectr.ops.cli.console import progress_bar
from prectr.ops.ranking.result import Ranking, RelevanceSource, candidate_notes, preference, rank_items
from prectr.ops.settings.loader import ENVIRONMENT_PREFIX, Settings, load_settings
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
"""Settings that may be given as one likes: where to compute, and which of the run's models."""


class _CheckpointConfig(msgspec.Struct, kw_only=True):
    """What a replay's cut and a live one have in common."""

    config: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankQuery:
    """What is to be ranked for whom. at: when it is asked (ms); None: at the newest event that the state has taken."""

    query: str
    user_id: str
    items: Sequence[Item]
    position: int = 1
    as_of: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRef:
    """Which run, and what was said of it. state_dirs: of a live system's stages; given: settings that must be its."""

    run_dir: Path
    state_dirs: Sequence[Path] = ()
    model: str | None = None
    without: str | None = None
    config: Path | None = None


def rank(run_ref: RunRef, rank_query: RankQuery) -> Ranking:
    """Rank the candidates by the newest checkpoint of a run.

    Raises:
        UsageError: a setting was given that is not the run's, or the stages' state has to be named.
        CheckpointError, StateError: there is no checkpoint or state, or it is damaged or of another system.
    """
    for _ in range(_MAX_ATTEMPTS):
        checkpoints = list_checkpoints(run_ref.run_dir / "checkpoints")
        if not checkpoints:
            break
        try:
            return _rank(run_ref, checkpoints[0], rank_query)
        except (CheckpointError, StateError):
            # A run that goes on removes the checkpoints before its newest two, also while we read one.
            if checkpoints[0] in list_checkpoints(run_ref.run_dir / "checkpoints"):
                raise
    raise CheckpointError(
        f"{run_ref.run_dir}: there is no checkpoint in it: name the --run-dir of a replay or of prectr train"
    )


def _rank(run_ref: RunRef, checkpoint_dir: Path, rank_query: RankQuery) -> Ranking:
    trainer, folder, pipeline = _open_trainer(run_ref, checkpoint_dir)
    stores = _open_stores(run_ref, checkpoint_dir)
    pipeline = stores.config or pipeline
    as_of = stores.max_event_time if rank_query.as_of is None else rank_query.as_of
    if as_of is None:
        raise StateError(f"{run_ref.run_dir}: the stages have taken no event yet: say by --as-of at what time to rank")
    query = normalise_query(rank_query.query)
    request = RankingRequest(
        rank_query.query,
        rank_query.user_id,
        as_of,
        stores.user(rank_query.user_id, as_of, pipeline),
        stores.query(query, as_of, pipeline),
    )
    examples = request_examples(request, rank_query.items, pipeline, LexicalLabeller())
    explanation = _explain(trainer, examples, rank_query.position)
    infers_levels = trainer.config.infers_levels
    sources: list[RelevanceSource] = [
        "inferred" if infers_levels else "labelled" if item.relevance is None else "given" for item in rank_query.items
    ]
    rates = explanation.rates
    complete_up_to = stores.complete_up_to(query, pipeline)
    return Ranking(
        query=query,
        user_id=rank_query.user_id,
        position=rank_query.position,
        as_of=as_of,
        complete_up_to=complete_up_to,
        model=trainer.config.model,
        without=list(trainer.config.without),
        checkpoint=str(folder),
        pages_trained=trainer.pages_trained,
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
        notes=[*_notes(request, query, complete_up_to, pipeline), *candidate_notes(rank_query.items, sources)],
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
        notes.append(f"user {request.user_id!r} is not known: ranked as a new one")
    if not query:
        notes.append("the query is empty")
    if not request.query_features.known:
        notes.append(f"query {query!r} is not known: ranked as a new one")
    lag = 0.0 if complete_up_to is None else (request.ts - complete_up_to) / 1000
    if lag > pipeline.attribution_window:
        notes.append(
            f"pages of the query that closed in the last {lag:,.0f} s are not counted yet: the stages have not come "
            "that far"
        )
    return notes


def _open_trainer(run_ref: RunRef, checkpoint_dir: Path) -> tuple[Trainer, Path, PipelineConfig]:
    """The trainer as of the cut, its folder in it, and the settings of the stages, as the run was begun with them."""
    config = read_manifest(checkpoint_dir, _CheckpointConfig).config
    models = [
        name
        for name in config.get("model", "").split(",")
        if (checkpoint_dir / "sinks" / name / checkpoint.HEADER).exists()
    ]
    if not models:
        raise CheckpointError(f"{run_ref.run_dir}: the run has trained no model: replay the log without --no-train")
    given = load_settings(run_ref.config, {"model": run_ref.model, "without": run_ref.without})
    names = _supplied_settings(run_ref)
    model = given.trainer.model if "model" in names else models[0]
    if model not in models:
        raise UsageError(
            f"model {model!r}: the run in {run_ref.run_dir} has trained {', '.join(models)}: name one of them"
        )
    folder = checkpoint_dir / "sinks" / model
    pipeline = msgspec.convert(config, PipelineConfig, strict=False)
    trained = checkpoint.read_config(folder)
    _check_settings(names - _FREE_SETTINGS, given, Settings(pipeline=pipeline, trainer=trained), folder)
    device = given.trainer.device if "device" in names else TrainerConfig().device
    trainer = Trainer(replace(trained, device=device))
    trainer.load(folder)
    return trainer, folder, pipeline


def _supplied_settings(run_ref: RunRef) -> frozenset[str]:
    """Settings that a flag, the environment or a file gives; `load_settings` has found them to be right."""
    names = {name for name in ("model", "without") if getattr(run_ref, name) is not None}
    names |= {
        name.removeprefix(ENVIRONMENT_PREFIX).lower() for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)
    }
    file = run_ref.config or os.environ.get("PRECTR_CONFIG")
    if file:
        names |= tomllib.loads(Path(file).read_text(encoding="utf-8")).keys()
    return frozenset(names)


def _check_settings(names: frozenset[str], given: Settings, run: Settings, folder: Path) -> None:
    """What is given must be what the run was trained with: a model cannot be scored under other settings."""
    wanted, has = {}, {}
    for given_part, run_part in ((given.pipeline, run.pipeline), (given.trainer, run.trainer)):
        for name in names:
            if hasattr(given_part, name) and _comparable(getattr(given_part, name)) != _comparable(
                getattr(run_part, name)
            ):
                wanted[name], has[name] = getattr(given_part, name), getattr(run_part, name)
    if different := config_diff(wanted, has):
        raise UsageError(
            f"checkpoint {folder} was trained with other settings: {different}. Leave them out, the "
            "checkpoint has its own, or name the --run-dir of a run that has these"
        )


def _comparable(value: object) -> object:
    return frozenset(value) if isinstance(value, tuple) and all(isinstance(part, str) for part in value) else value


def _open_stores(run_ref: RunRef, checkpoint_dir: Path) -> TaskStores:
    """The state of the stages: as named; a replay's as of the cut; or where `prectr run` has it."""
    if run_ref.state_dirs:
        return TaskStores(run_ref.state_dirs)
    for folder in (checkpoint_dir / "state", run_ref.run_dir / "state"):
        if folder.is_dir():
            return TaskStores([folder])
    raise UsageError(
        f"{run_ref.run_dir} is a live trainer's, and the stages keep their state elsewhere: name the state folder of "
        "every process of prectr stream by --state-dir"
    )
