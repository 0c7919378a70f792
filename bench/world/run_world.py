"""All rows of one simulated world: simulate, replay once with every model training, measure."""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.quality.bootstrap import BootstrapResult, bootstrap_auc
from bench.quality.rows import Row, add_reference_shares, measure_row
from bench.quality.scores import (
    REFERENCE,
    Scores,
    baseline_scores,
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
from bench.quality.variants import Variant
from bench.world.ground_truth import GroundTruth, make_log, read_truth
from bench.world.stage_one import LevelMetrics, LevelSample
from prectr.model.text.encoder.artifact import EncoderArtifact, load_encoder
from prectr.ops.cli.console import progress_bar
from prectr.ops.settings.loader import Settings
from prectr.stream.simulator import WorldSettings


@dataclass(frozen=True, slots=True)
class RunContext:
    """What the models of a run share.

    settings: defaults of all models. encoder: folder of the stage-one encoder. work_dir: cache of logs and scores.
    any_code: whether to reuse scores that other code made.
    """

    settings: Settings
    encoder: Path
    work_dir: Path
    any_code: bool = False

    def folder(self, world: WorldSettings) -> Path:
        """Cache folder of one world."""
        return self.work_dir / f"{world.pages}-{world.days:g}-{world.seed}{'-drift' if world.drift else ''}"


class LevelAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy of inferred relevance levels in one world.

    name: the model that trained the encoder jointly; empty: after stage one. known_queries: share of the impressions
    whose query text is among the graded queries of stage one.
    """

    name: str
    track: str
    seed: int
    metrics: list[LevelMetrics]
    known_queries: float | None = None


class WorldResults(msgspec.Struct, kw_only=True):
    """Results of one world and one track."""

    rows: list[Row]
    resampled: list[BootstrapResult]
    levels: list[LevelAccuracy]


def measure_world(settings: WorldSettings, models: Sequence[Variant], context: RunContext) -> WorldResults:
    """Baselines, models, reference learner, oracle, in this order; all models of one track."""
    start = time.monotonic()
    track = models[0].track

    def log_progress(message: str) -> None:
        print(f"seed {settings.seed}, track {track}: {message} ({time.monotonic() - start:.0f} s)", file=sys.stderr)

    folder = context.folder(settings)
    make_log(settings, folder)
    truth = read_truth(settings, folder)
    log_progress(f"{truth.pages:,} pages simulated")
    scored = {Variant(model=name, track=track): scores for name, scores in baseline_scores(truth).items()}
    scored = dict(sorted(scored.items(), key=lambda pair: pair[0].model))
    model_results = model_scores(truth, models, context)
    scored |= model_results
    log_progress("models replayed")
    scored[Variant(model=REFERENCE, track=track)] = _reference_scores(truth, context)
    log_progress("reference learner done")
    scored[Variant(model="oracle", track=track)] = oracle_scores(truth)
    rows = add_reference_shares([measure_row(truth, scores, variant) for variant, scores in scored.items()], REFERENCE)
    encoder = load_encoder(context.encoder)
    trained = {variant.name for variant in model_results}
    rows = [msgspec.structs.replace(row, stage_one=encoder.sha256[:12]) if row.name in trained else row for row in rows]
    resampled = [bootstrap_auc(truth, scores, variant) for variant, scores in model_results.items()]
    levels = _level_accuracy(truth, model_results, encoder, context.encoder) if track == "T" else []
    log_progress("measured")
    return WorldResults(rows=rows, resampled=resampled, levels=levels)


def model_scores(truth: GroundTruth, models: Sequence[Variant], context: RunContext) -> dict[Variant, Scores]:
    """Scores of the models; those that are not cached come from a single replay."""
    folder, code = context.folder(truth.world.settings), None if context.any_code else model_code()
    identities = {one: model_identity(truth, context.settings, one, context.encoder) for one in models}
    kept = {one: read_scores(_scores_path(folder, one), identities[one], code) for one in models}
    missing = [variant for variant, scores in kept.items() if scores is None]
    made: dict[Variant, Scores] = {}
    if missing:
        run_dir = folder / "replay"
        with progress_bar(f"replay of seed {truth.world.settings.seed}", truth.log.stat().st_size) as shown:
            made = replay_models(
                truth,
                run_dir,
                context.settings,
                missing,
                context.encoder,
                lambda run: shown.update(run.bytes_read, f"{run.pages:,} pages"),
            )
        for variant, scores in made.items():
            write_scores(_scores_path(folder, variant), scores, identities[variant])
        shutil.rmtree(run_dir)
    return {variant: made[variant] if scores is None else scores for variant, scores in kept.items()}


def _reference_scores(truth: GroundTruth, context: RunContext) -> Scores:
    file = _scores_path(context.folder(truth.world.settings), Variant(model=REFERENCE))
    identity = reference_identity(truth)
    scores = read_scores(file, identity, None if context.any_code else reference_code())
    if scores is None:
        scores = reference_scores(truth)
        write_scores(file, scores, identity)
    return scores


def _level_accuracy(
    truth: GroundTruth, scored: dict[Variant, Scores], encoder: EncoderArtifact, folder: Path
) -> list[LevelAccuracy]:
    sample, seed = LevelSample(truth), truth.world.settings.seed
    graded = {pair.query for pair in encoder.pairs}
    known = sum(query in graded for query, _ in sample.pairs) / len(sample.query)
    found = [LevelAccuracy(name="", track="T", seed=seed, metrics=sample.encoder_metrics(folder), known_queries=known)]
    found += [
        LevelAccuracy(name=variant.name, track="T", seed=seed, metrics=sample.metrics(scores.levels))
        for variant, scores in scored.items()
        if scores.levels is not None
    ]
    return found


def _scores_path(folder: Path, variant: Variant) -> Path:
    return folder / f"{variant.track} {variant.name}.safetensors".replace(" ", "-")
