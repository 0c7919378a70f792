"""The stage-one encoder of the synthetic world, and how well it tells levels.

It learns from another catalogue seed: same words, other items and queries. First made-up queries, whose levels a rule
tells from the catalogue's own fields; then graded pairs drawn evenly over all candidates, of which some levels are off
by one, as people's are. It is made once and kept by what it depends on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.provenance import code_sha256
from bench.relevance.synthetic_queries import synthetic_pairs, text_vectors
from bench.world.ground_truth import GroundTruth, Impressions
from prectr.model.config import PretrainConfig
from prectr.model.text.encoder.artifact import load_encoder, save_encoder
from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.pretrain import predict_level_logits, pretrain
from prectr.model.text.encoder.provenance import provenance_of
from prectr.model.text.encoder.tokens import Pair
from prectr.model.text.teacher.labels import LabelManifest, SoftLabels, pairs_digest, texts_of
from prectr.ops.cli.console import progress_bar
from prectr.stream.events.query_key import normalise_query
from prectr.stream.simulator import Catalogue, WorldSettings, make_catalogue

SLICES: Final = ("exposed", "unexposed", "never shown")
SAMPLES_PER_SLICE: Final = 4_000
"""Showings of each slice whose levels are looked at."""

PRETRAIN_CONFIG: Final = PretrainConfig(
    distil_epochs=4, temperature=1.0, tune_epochs=8, tune_lr=5e-4, mask_probability=0.15
)
"""Chosen on the candidates of seed 100: 72 % of their levels are told."""

_CODE: Final = ("stream/simulator", "model/encoder", "bench/world/stage_one.py", "bench/relevance/synthetic_queries.py")


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stage-one encoder is made from.

    seed: of the catalogue, of the pairs drawn and of their errors; no measured world may have it.
    wrong: share of the labels that are off by one. made_up: pairs of made-up queries to warm up with, 0 for none.
    training: how it is pre-trained.
    """

    seed: int = 1_000
    pairs: int = 4_000
    wrong: float = 0.15
    made_up: int = 30_000
    queries: int | None = None
    items: int | None = None
    training: PretrainConfig = PRETRAIN_CONFIG


def draw_graded_pairs(catalogue: Catalogue, recipe: Recipe) -> list[GradedPair]:
    """Candidates drawn evenly and without repetition, with their levels, some of them off by one."""
    rng = np.random.default_rng([recipe.seed, 21])
    query, slot = np.nonzero(catalogue.candidates >= 0)
    drawn = rng.choice(len(query), min(recipe.pairs, len(query)), replace=False)
    query, slot = query[drawn], slot[drawn]
    levels = add_label_noise(catalogue.levels[query, slot], recipe.wrong, rng)
    items = catalogue.candidates[query, slot]
    return [
        GradedPair(normalise_query(catalogue.queries[q]), catalogue.titles[item], level)
        for q, item, level in zip(query.tolist(), items.tolist(), levels.tolist(), strict=True)
    ]


def add_label_noise(levels: NDArray[np.uint8], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Levels 1 to 4, int64 (n,), a share of them one higher or lower; at the ends there is one way to go."""
    true = levels.astype(np.int64)
    step = np.where(rng.random(len(true)) < 0.5, -1, 1)
    step = np.where(true == 1, 1, np.where(true == 4, -1, step))
    return np.where(rng.random(len(true)) < share, true + step, true)


def make_stage_one(recipe: Recipe, work: Path) -> Path:
    """The encoder's folder below `work`, made unless the same is there already."""
    identity = msgspec.json.encode({"recipe": recipe, "code": code_sha256(*_CODE)})
    folder = work / f"stage-one-{hashlib.sha256(identity).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    catalogue = make_catalogue(
        WorldSettings(pages=1, seed=recipe.seed, queries=recipe.queries, items=recipe.items, users=1)
    )
    graded = draw_graded_pairs(catalogue, recipe)
    pairs, labels = _query_title_pairs(catalogue), None
    if recipe.made_up:
        pairs, log_levels = synthetic_pairs(catalogue, recipe.made_up, recipe.seed)
        labels = _soft_labels(catalogue, pairs, log_levels, recipe.seed)
    with progress_bar("stage one", 1.0) as shown:
        made = pretrain(graded, recipe.training, unlabelled=pairs, labels=labels, on_progress=shown.update)
    provenance = provenance_of(made, recipe.training, graded=graded, labels=labels.manifest if labels else None)
    staging = folder.with_name(folder.name + ".part")
    save_encoder(
        staging,
        made.network,
        made.tokenizer,
        pairs=graded,
        provenance=provenance | {"recipe": msgspec.to_builtins(recipe)},
    )
    staging.rename(folder)
    return folder


def _query_title_pairs(catalogue: Catalogue) -> list[Pair]:
    """All queries and titles of a catalogue, as pairs: what a vocabulary is trained on."""
    query, slot = np.nonzero(catalogue.candidates >= 0)
    items = catalogue.candidates[query, slot]
    return [
        (normalise_query(catalogue.queries[q]), catalogue.titles[item])
        for q, item in zip(query.tolist(), items.tolist(), strict=True)
    ]


def _soft_labels(catalogue: Catalogue, pairs: Sequence[Pair], log_levels: NDArray[np.float32], seed: int) -> SoftLabels:
    texts = texts_of(pairs)
    manifest = LabelManifest(
        format=1,
        teacher={
            "kind": "rule over the catalogue's fields",
            "code": code_sha256("bench/relevance/synthetic_queries.py"),
        },
        pairs=len(pairs),
        pairs_sha256=pairs_digest(pairs),
        part=len(pairs),
    )
    index_of_text = {text: index for index, text in enumerate(texts)}
    return SoftLabels(log_levels, index_of_text, text_vectors(catalogue, texts, seed), manifest)


UNEVEN_LEVELS: Final = {"low": (1, 2), "high": (3, 4)}
"""Levels of which a part of the graded pairs is missing, by name."""

MISSING_SHARE: Final = 0.30


def uneven_folder(folder: Path, which: str) -> Path:
    """Where the same encoder is kept with graded pairs that misjudge how the candidates' levels are spread."""
    return folder.with_name(f"{folder.name}-graded-{which}")


def make_uneven(folder: Path, which: str) -> Path:
    """The same encoder with 30 % of the graded pairs of some levels (`UNEVEN`) missing, made unless it is there.

    Stage two takes the shares of the levels among the candidates from these pairs, and then misjudges them.
    """
    made = uneven_folder(folder, which)
    if made.is_dir():
        return made
    encoder = load_encoder(folder)
    rng = np.random.default_rng(24)
    missing = rng.random(len(encoder.pairs)) < MISSING_SHARE
    pairs = [
        pair
        for pair, removed in zip(encoder.pairs, missing, strict=True)
        if pair.level not in UNEVEN_LEVELS[which] or not removed
    ]
    staging = made.with_name(made.name + ".part")
    save_encoder(staging, encoder.network, encoder.tokenizer, pairs=pairs, provenance=encoder.header.provenance)
    staging.rename(made)
    return made


# --- how well levels are told -----------------------------------------------------------------------------------------


class LevelMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """How well the levels of a slice's showings are told.

    accuracy: share whose likeliest level is the true one. log_loss: mean −ln P(true level), nats. showings: how many.
    """

    slice: str
    accuracy: float
    log_loss: float
    showings: int


class LevelSample:
    """Showings of each slice, drawn from a world's truth, whose levels are asked for."""

    def __init__(self, truth: GroundTruth) -> None:
        late = truth.shown.page >= truth.half
        everything = np.ones(len(truth.unexposed.page), dtype=np.bool_)
        never = truth.unexposed.shown_before == 0
        rng = np.random.default_rng([truth.world.settings.seed, 22])
        self._truth = truth
        self._samples = {
            name: _draw_sample(part, which, rng)
            for name, (part, which) in zip(
                SLICES, ((truth.shown, late), (truth.unexposed, everything), (truth.unexposed, never)), strict=True
            )
        }
        parts = [(part, indices) for part, indices in self._samples.values()]
        self.query = np.concatenate([truth.query[part.page[places]] for part, places in parts])
        """int64 (n,), places among the world's queries; of all slices, one after the other."""
        self.item = np.concatenate([part.item[places] for part, places in parts])
        """int64 (n,), places in the catalogue."""
        self.level = np.concatenate([part.level[places] for part, places in parts])
        """uint8 (n,), true."""

    @property
    def pairs(self) -> list[Pair]:
        """Query and title of each showing."""
        catalogue = self._truth.world.catalogue
        return [
            (normalise_query(catalogue.queries[query]), catalogue.titles[item])
            for query, item in zip(self.query.tolist(), self.item.tolist(), strict=True)
        ]

    def metrics(self, probability: NDArray[np.float64]) -> list[LevelMetrics]:
        """How well P(level), float64 (n, 4), tells the levels, slice by slice; slices without showings are left out."""
        sizes = [len(indices) for _, indices in self._samples.values()]
        ends = np.cumsum(sizes)
        return [
            _level_metrics(name, probability[end - size : end], self.level[end - size : end])
            for name, size, end in zip(self._samples, sizes, ends.tolist(), strict=True)
            if size
        ]

    def encoder_metrics(self, folder: Path) -> list[LevelMetrics]:
        """How well an encoder tells the levels, as its folder has it."""
        encoder = load_encoder(folder)
        logits = predict_level_logits(encoder.network, encoder.tokenizer, self.pairs).double()
        return self.metrics(logits.softmax(dim=1).numpy())


def _draw_sample(
    part: Impressions, mask: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Impressions, NDArray[np.int64]]:
    candidates = np.flatnonzero(mask)
    return part, np.sort(rng.choice(candidates, min(SAMPLES_PER_SLICE, len(candidates)), replace=False))


def _level_metrics(name: str, probability: NDArray[np.float64], level: NDArray[np.uint8]) -> LevelMetrics:
    true = level.astype(np.int64) - 1
    of_true = probability[np.arange(len(true)), true]
    return LevelMetrics(
        slice=name,
        accuracy=float((probability.argmax(axis=1) == true).mean()),
        log_loss=float(-np.log(np.clip(of_true, 1e-12, 1.0)).mean()),
        showings=len(true),
    )


def mean_level_metrics(found: Sequence[Sequence[LevelMetrics]]) -> Mapping[str, LevelMetrics]:
    """The means over worlds, by slice."""
    means: dict[str, LevelMetrics] = {}
    for name in SLICES:
        own = [metrics for world in found for metrics in world if metrics.slice == name]
        if own:
            means[name] = LevelMetrics(
                slice=name,
                accuracy=float(np.mean([figures.accuracy for figures in own])),
                log_loss=float(np.mean([figures.log_loss for figures in own])),
                showings=sum(figures.showings for figures in own),
            )
    return means
