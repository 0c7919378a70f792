"""All rows of one simulated world: simulate, replay once with every model learning, measure."""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.quality.bootstrap import Resampled, resample
from bench.quality.rows import Row, measure, with_shares
from bench.quality.scores import (
    REFERENCE,
    Scores,
    floor_scores,
    model_code,
    model_identity,
    oracle_scores,
    read_scores,
    reference_code,
    reference_identity,
    reference_scores,
    replay_models,
    write_scores,
)
from bench.quality.variants import Contender
from bench.world.ground_truth import Truth, make_log, read_truth
from bench.world.stage_one import LevelFigures, LevelSample
from prectr.model.text.encoder.artifact import EncoderFolder, load_encoder
from prectr.ops.cli.console import meter
from prectr.ops.settings.loader import Settings
from prectr.stream.simulator import WorldSettings


@dataclass(frozen=True, slots=True)
class Means:
    """By what the models of a run are made.

    settings: of all of them. encoder: the folder of stage one. work: keeps logs and scores. any_code: scores that
    other code made count too.
    """

    settings: Settings
    encoder: Path
    work: Path
    any_code: bool = False

    def folder(self, world: WorldSettings) -> Path:
        """Where everything of one world is kept."""
        return self.work / f"{world.pages}-{world.days:g}-{world.seed}{'-drift' if world.drift else ''}"


class Levels(msgspec.Struct, frozen=True, kw_only=True):
    """How well levels are told in one world.

    name: the model whose joint training the encoder went through; empty: as stage one left it. known_queries: share of
    the showings whose query, word by word, was among the graded ones of stage one.
    """

    name: str
    track: str
    seed: int
    figures: list[LevelFigures]
    known_queries: float | None = None


class Measured(msgspec.Struct, kw_only=True):
    """What was found in one world and one track."""

    rows: list[Row]
    resampled: list[Resampled]
    levels: list[Levels]


def measure_world(settings: WorldSettings, models: Sequence[Contender], means: Means) -> Measured:
    """Floors, models, reference learner, oracle, in this order; all models of one track."""
    start = time.monotonic()
    track = models[0].track

    def say(what: str) -> None:
        print(f"seed {settings.seed}, track {track}: {what} ({time.monotonic() - start:.0f} s)", file=sys.stderr)

    folder = means.folder(settings)
    make_log(settings, folder)
    truth = read_truth(settings, folder)
    say(f"{truth.pages:,} pages simulated")
    scored = {Contender(model=name, track=track): scores for name, scores in floor_scores(truth).items()}
    scored = dict(sorted(scored.items(), key=lambda pair: pair[0].model))
    of_models = model_scores(truth, models, means)
    scored |= of_models
    say("models replayed")
    scored[Contender(model=REFERENCE, track=track)] = _reference(truth, means)
    say("reference learner done")
    scored[Contender(model="oracle", track=track)] = oracle_scores(truth)
    rows = with_shares([measure(truth, scores, contender) for contender, scores in scored.items()], REFERENCE)
    encoder = load_encoder(means.encoder)
    trained = {contender.name for contender in of_models}
    rows = [msgspec.structs.replace(row, stage_one=encoder.sha256[:12]) if row.name in trained else row for row in rows]
    resampled = [resample(truth, scores, contender) for contender, scores in of_models.items()]
    levels = _levels(truth, of_models, encoder, means.encoder) if track == "T" else []
    say("measured")
    return Measured(rows=rows, resampled=resampled, levels=levels)


def model_scores(truth: Truth, models: Sequence[Contender], means: Means) -> dict[Contender, Scores]:
    """The scores of the models, those that are not kept from a single replay."""
    folder, code = means.folder(truth.world.settings), None if means.any_code else model_code()
    identities = {one: model_identity(truth, means.settings, one, means.encoder) for one in models}
    kept = {one: read_scores(_file(folder, one), identities[one], code) for one in models}
    missing = [contender for contender, scores in kept.items() if scores is None]
    made: dict[Contender, Scores] = {}
    if missing:
        run_dir = folder / "replay"
        with meter(f"replay of seed {truth.world.settings.seed}", truth.log.stat().st_size) as shown:
            made = replay_models(
                truth,
                run_dir,
                means.settings,
                missing,
                means.encoder,
                lambda run: shown.update(run.bytes_read, f"{run.pages:,} pages"),
            )
        for contender, scores in made.items():
            write_scores(_file(folder, contender), scores, identities[contender])
        shutil.rmtree(run_dir)
    return {contender: made[contender] if scores is None else scores for contender, scores in kept.items()}


def _reference(truth: Truth, means: Means) -> Scores:
    file = _file(means.folder(truth.world.settings), Contender(model=REFERENCE))
    identity = reference_identity(truth)
    scores = read_scores(file, identity, None if means.any_code else reference_code())
    if scores is None:
        scores = reference_scores(truth)
        write_scores(file, scores, identity)
    return scores


def _levels(truth: Truth, scored: dict[Contender, Scores], encoder: EncoderFolder, folder: Path) -> list[Levels]:
    sample, seed = LevelSample(truth), truth.world.settings.seed
    graded = {pair.query for pair in encoder.pairs}
    known = sum(query in graded for query, _ in sample.pairs) / len(sample.query)
    found = [Levels(name="", track="T", seed=seed, figures=sample.of_encoder(folder), known_queries=known)]
    found += [
        Levels(name=contender.name, track="T", seed=seed, figures=sample.figures(scores.levels))
        for contender, scores in scored.items()
        if scores.levels is not None
    ]
    return found


def _file(folder: Path, contender: Contender) -> Path:
    return folder / f"{contender.track} {contender.name}.safetensors".replace(" ", "-")
