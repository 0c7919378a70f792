"""A run, opened to rank by: the newest checkpoint's trainer, and the state of the stages that feed it."""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from prectr.model.config import TrainerConfig
from prectr.model.quality.explanation import Explained, joined
from prectr.model.training import checkpoint
from prectr.model.training.trainer import Trainer
from prectr.ops.cli.console import meter
from prectr.ops.ranking.result import LevelSource, Ranking, in_order, notes_on, preference
from prectr.ops.settings.loader import ENVIRONMENT_PREFIX, Settings, load_settings
from prectr.state.errors import CheckpointError, StateError, UsageError
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Item
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.events.query_key import normalise_query
from prectr.stream.records import Example, decode_query_clicks
from prectr.stream.replay.run_checkpoint import cuts, read_manifest
from prectr.stream.serving.point_in_time import MOST_ITEMS, Asked, Stores, asked_examples

_TRIES: Final = 3
_FREE: Final = frozenset({"device", "model"})
"""Settings that may be given as one likes: where to compute, and which of the run's models."""


class _Cut(msgspec.Struct, kw_only=True):
    """What a replay's cut and a live one have in common."""

    config: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be ranked for whom. at: when it is asked (ms); None: at the newest event that the state has taken."""

    query: str
    user_id: str
    items: Sequence[Item]
    position: int = 1
    at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChoice:
    """Which run, and what was said of it. state_dirs: of a live system's stages; given: settings that must be its."""

    run_dir: Path
    state_dirs: Sequence[Path] = ()
    model: str | None = None
    without: str | None = None
    config: Path | None = None


def rank(choice: RunChoice, question: Question) -> Ranking:
    """Rank the candidates by the newest checkpoint of a run.

    Raises:
        UsageError: a setting was given that is not the run's, or the stages' state has to be named.
        CheckpointError, StateError: there is no checkpoint or state, or it is damaged or of another system.
    """
    for _ in range(_TRIES):
        found = cuts(choice.run_dir / "checkpoints")
        if not found:
            break
        try:
            return _rank(choice, found[0], question)
        except (CheckpointError, StateError):
            # A run that goes on removes the checkpoints before its newest two, also while we read one.
            if found[0] in cuts(choice.run_dir / "checkpoints"):
                raise
    raise CheckpointError(
        f"{choice.run_dir}: there is no checkpoint in it: name the --run-dir of a replay or of prectr train"
    )


def _rank(choice: RunChoice, cut: Path, question: Question) -> Ranking:
    trainer, folder, pipeline = _opened(choice, cut)
    stores = _stores(choice, cut)
    pipeline = stores.config or pipeline
    at = stores.newest if question.at is None else question.at
    if at is None:
        raise StateError(f"{choice.run_dir}: the stages have taken no event yet: say by --at at what time to rank")
    query = normalise_query(question.query)
    asked = Asked(
        question.query,
        question.user_id,
        at,
        stores.user(question.user_id, at, pipeline),
        stores.query(query, at, pipeline),
    )
    examples = asked_examples(asked, question.items, pipeline, LexicalLabeller())
    explained = _explained(trainer, examples, question.position)
    infers = trainer.config.infers_levels
    sources: list[LevelSource] = [
        "inferred" if infers else "labelled" if item.relevance is None else "given" for item in question.items
    ]
    rates = explained.rates
    counted_to = stores.counted_to(query, pipeline)
    return Ranking(
        query=query,
        user_id=question.user_id,
        position=question.position,
        as_of=at,
        counted_to=counted_to,
        model=trainer.config.model,
        without=list(trainer.config.without),
        checkpoint=str(folder),
        pages_trained=trainer.pages_trained,
        user=preference(
            question.user_id,
            seen=asked.of_user.seen,
            stats=asked.of_user.stats,
            rates=rates.user,
            expected=rates.parent,
            past_clicks=asked.of_user.activity,
        ),
        asked=preference(
            query,
            seen=asked.of_query.seen,
            stats=asked.of_query.stats,
            rates=rates.query,
            expected=rates.parent,
            past_clicks=len(decode_query_clicks(asked.of_query.clicks)),
        ),
        candidates=len(question.items),
        ranked=in_order(question.items, explained, sources),
        notes=[*_notes(asked, query, counted_to, pipeline), *notes_on(question.items, sources)],
    )


def _explained(trainer: Trainer, examples: Sequence[Example], position: int) -> Explained:
    if len(examples) == 1:
        return trainer.explain(examples, position)
    parts = []
    with meter("rank", len(examples)) as shown:
        for done, example in enumerate(examples, 1):
            parts.append(trainer.explain([example], position))
            shown.update(done, f"{done * MOST_ITEMS:,} candidates")
    return joined(parts)


def _notes(asked: Asked, query: str, counted_to: int | None, pipeline: PipelineConfig) -> list[str]:
    notes = []
    if not asked.of_user.seen:
        notes.append(f"user {asked.user_id!r} is not known: ranked as a new one")
    if not query:
        notes.append("the query is empty")
    if not asked.of_query.seen:
        notes.append(f"query {query!r} is not known: ranked as a new one")
    behind = 0.0 if counted_to is None else (asked.ts - counted_to) / 1000
    if behind > pipeline.attribution_window:
        notes.append(
            f"pages of the query that closed in the last {behind:,.0f} s are not counted yet: the stages have not come "
            "that far"
        )
    return notes


def _opened(choice: RunChoice, cut: Path) -> tuple[Trainer, Path, PipelineConfig]:
    """The trainer as of the cut, its folder in it, and the settings of the stages, as the run was begun with them."""
    config = read_manifest(cut, _Cut).config
    models = [
        name for name in config.get("model", "").split(",") if (cut / "sinks" / name / checkpoint.HEADER).exists()
    ]
    if not models:
        raise CheckpointError(f"{choice.run_dir}: the run has trained no model: replay the log without --no-train")
    given = load_settings(choice.config, {"model": choice.model, "without": choice.without})
    names = _given_names(choice)
    model = given.trainer.model if "model" in names else models[0]
    if model not in models:
        raise UsageError(
            f"model {model!r}: the run in {choice.run_dir} has trained {', '.join(models)}: name one of them"
        )
    folder = cut / "sinks" / model
    pipeline = msgspec.convert(config, PipelineConfig, strict=False)
    trained = checkpoint.read_config(folder)
    _refuse_others(names - _FREE, given, Settings(pipeline=pipeline, trainer=trained), folder)
    device = given.trainer.device if "device" in names else TrainerConfig().device
    trainer = Trainer(replace(trained, device=device))
    trainer.load(folder)
    return trainer, folder, pipeline


def _given_names(choice: RunChoice) -> frozenset[str]:
    """Settings that a flag, the environment or a file gives; `load_settings` has found them to be right."""
    names = {name for name in ("model", "without") if getattr(choice, name) is not None}
    names |= {
        name.removeprefix(ENVIRONMENT_PREFIX).lower() for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)
    }
    file = choice.config or os.environ.get("PRECTR_CONFIG")
    if file:
        names |= tomllib.loads(Path(file).read_text(encoding="utf-8")).keys()
    return frozenset(names)


def _refuse_others(names: frozenset[str], given: Settings, run: Settings, folder: Path) -> None:
    """What is given must be what the run was trained with: a model cannot be scored under other settings."""
    different = []
    for name in sorted(names):
        for wanted, has in ((given.pipeline, run.pipeline), (given.trainer, run.trainer)):
            if hasattr(wanted, name) and _same(getattr(wanted, name)) != _same(getattr(has, name)):
                different.append(f"{name} is {_shown(getattr(wanted, name))}, was {_shown(getattr(has, name))}")
    if different:
        raise UsageError(
            f"checkpoint {folder} was trained with other settings: {'; '.join(different)}. Leave them out, the "
            "checkpoint has its own, or name the --run-dir of a run that has these"
        )


def _same(value: object) -> object:
    return frozenset(value) if isinstance(value, tuple) and all(isinstance(part, str) for part in value) else value


def _shown(value: object) -> str:
    return (", ".join(map(str, value)) or "nothing") if isinstance(value, tuple) else str(value)


def _stores(choice: RunChoice, cut: Path) -> Stores:
    """The state of the stages: as named; a replay's as of the cut; or where `prectr run` has it."""
    if choice.state_dirs:
        return Stores(choice.state_dirs)
    for folder in (cut / "state", choice.run_dir / "state"):
        if folder.is_dir():
            return Stores([folder])
    raise UsageError(
        f"{choice.run_dir} is a live trainer's, and the stages keep their state elsewhere: name the state folder of "
        "every process of prectr stream by --state-dir"
    )
