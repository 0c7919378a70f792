"""The stage-one encoder of the synthetic world, and the accuracy of its levels.

It is trained on another catalogue seed: same words, other items and queries. First on synthetic queries, with levels
by a rule over the catalogue's fields; then on graded pairs drawn uniformly from all candidates, some levels off by one
like those of human graders. The encoder is cached under a hash of everything it depends on.
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
"""Impressions sampled from each slice."""

PRETRAIN_CONFIG: Final = PretrainConfig(
    distil_epochs=4, temperature=1.0, tune_epochs=8, tune_lr=5e-4, mask_probability=0.15
)
"""Chosen on the candidates of seed 100: accuracy of their levels 72 %."""

_CODE: Final = (
    "stream/simulator",
    "model/text/encoder",
    "model/text/teacher",
    "bench/world/stage_one.py",
    "bench/relevance/synthetic_queries.py",
)


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a stage-one encoder is made.

    seed: of the catalogue, the sampled pairs and their errors; must differ from the seeds of all measured worlds.
    pairs: number of graded pairs. wrong: share of their levels that is off by one. synthetic_pairs: number of pairs of
    synthetic queries to warm up with, 0 for none. queries, items: size of the catalogue. training: pre-training
    settings.
    """

    seed: int = 1_000
    pairs: int = 4_000
    wrong: float = 0.15
    synthetic_pairs: int = 30_000
    queries: int | None = None
    items: int | None = None
    training: PretrainConfig = PRETRAIN_CONFIG


def draw_graded_pairs(catalogue: Catalogue, recipe: Recipe) -> list[GradedPair]:
    """Candidates drawn uniformly without replacement, with their levels, some of them off by one."""
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
    """Levels 1 to 4, int64 (n,), a share of them changed by ±1; levels 1 and 4 can change in one direction only."""
    true = levels.astype(np.int64)
    step = np.where(rng.random(len(true)) < 0.5, -1, 1)
    step = np.where(true == 1, 1, np.where(true == 4, -1, step))
    return np.where(rng.random(len(true)) < share, true + step, true)


def make_stage_one(recipe: Recipe, work: Path) -> Path:
    """Return the encoder's folder below `work`; train the encoder if it is not cached."""
    identity = msgspec.json.encode({"recipe": recipe, "code": code_sha256(*_CODE)})
    folder = work / f"stage-one-{hashlib.sha256(identity).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    catalogue = make_catalogue(
        WorldSettings(pages=1, seed=recipe.seed, queries=recipe.queries, items=recipe.items, users=1)
    )
    graded = draw_graded_pairs(catalogue, recipe)
    pairs, labels = _query_title_pairs(catalogue), None
    if recipe.synthetic_pairs:
        pairs, log_levels = synthetic_pairs(catalogue, recipe.synthetic_pairs, recipe.seed)
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
    """All query-candidate pairs of a catalogue, to train a vocabulary on."""
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
"""Levels of which some graded pairs are removed, by name."""

MISSING_SHARE: Final = 0.30


def uneven_folder(folder: Path, which: str) -> Path:
    """Folder of the encoder's copy whose graded pairs have a wrong level distribution."""
    return folder.with_name(f"{folder.name}-graded-{which}")


def make_uneven(folder: Path, which: str) -> Path:
    """Copy the encoder without 30 % of the graded pairs of some levels (`UNEVEN_LEVELS`), unless the copy exists.

    Stage two estimates the level distribution of the candidates from these pairs, so its prior is then wrong.
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


# --- accuracy of levels -----------------------------------------------------------------------------------------------


class LevelMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy of predicted levels on a slice.

    accuracy: share whose likeliest level is the true one. log_loss: mean −ln P(true level), nats. impressions: their
    number.
    """

    slice: str
    accuracy: float
    log_loss: float
    impressions: int


class LevelSample:
    """Impressions sampled from each slice of a world's ground truth, to evaluate levels on."""

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
        """int64 (n,), indices of the world's queries; slices are concatenated."""
        self.item = np.concatenate([part.item[places] for part, places in parts])
        """int64 (n,), indices in the catalogue."""
        self.level = np.concatenate([part.level[places] for part, places in parts])
        """uint8 (n,), true levels."""

    @property
    def pairs(self) -> list[Pair]:
        """Query and title of each impression."""
        catalogue = self._truth.world.catalogue
        return [
            (normalise_query(catalogue.queries[query]), catalogue.titles[item])
            for query, item in zip(self.query.tolist(), self.item.tolist(), strict=True)
        ]

    def metrics(self, probability: NDArray[np.float64]) -> list[LevelMetrics]:
        """Evaluate P(level), float64 (n, 4), per slice; empty slices are omitted."""
        sizes = [len(indices) for _, indices in self._samples.values()]
        ends = np.cumsum(sizes)
        return [
            _level_metrics(name, probability[end - size : end], self.level[end - size : end])
            for name, size, end in zip(self._samples, sizes, ends.tolist(), strict=True)
            if size
        ]

    def encoder_metrics(self, folder: Path) -> list[LevelMetrics]:
        """Evaluate the levels of an encoder, loaded from its folder."""
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
        impressions=len(true),
    )


def mean_level_metrics(found: Sequence[Sequence[LevelMetrics]]) -> Mapping[str, LevelMetrics]:
    """Means over worlds, by slice."""
    means: dict[str, LevelMetrics] = {}
    for name in SLICES:
        own = [metrics for world in found for metrics in world if metrics.slice == name]
        if own:
            means[name] = LevelMetrics(
                slice=name,
                accuracy=float(np.mean([level_metrics.accuracy for level_metrics in own])),
                log_loss=float(np.mean([level_metrics.log_loss for level_metrics in own])),
                impressions=sum(level_metrics.impressions for level_metrics in own),
            )
    return means
