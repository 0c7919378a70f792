"""Scores of all variants, baselines and references: how they are made, and the files that cache them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from bench.provenance import ROOT, code_sha256
from bench.quality.variants import ABLATED_MODEL, Variant, encoder_of, trainer_config
from bench.world.benchmark import baseline_tables
from bench.world.ground_truth import Floats, GroundTruth, Impressions, Ints
from bench.world.reference_learner import LearnedParts, ReferenceLearner
from bench.world.stage_one import LevelSample
from prectr.model.config import TrainerConfig
from prectr.model.text.encoder.artifact import read_header
from prectr.model.training.trainer import BatchScores, Trainer
from prectr.ops.settings.loader import Settings
from prectr.state.errors import PrectrError
from prectr.stream.events.contract import Item, ResultPage
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.events.query_key import normalise_query
from prectr.stream.records import Example, decode_page, encode_record
from prectr.stream.replay.runner import Replay, RunnerOptions

REFERENCE: Final = "reference learner"
_MAX_ITEMS: Final = 200
"""Maximum number of items on a page."""
_EXCLUDED_CODE: Final = ("stream/simulator/", "stream/kafka/", "model/text/teacher/")
_PRETRAINING_CODE: Final = tuple(
    f"model/text/encoder/{name}.py"
    for name in ("holdout", "length_bucketing", "pretrain", "provenance", "schedule", "vocabulary")
)
_MODEL_CODE: Final = (
    *sorted(
        path
        for package in ("stream", "model", "state")
        for path in (str(file.relative_to(ROOT)) for file in (ROOT / package).rglob("*.py"))
        if not path.startswith(_EXCLUDED_CODE) and path not in _PRETRAINING_CODE
    ),
    "bench/quality/scores.py",
    "bench/world/ground_truth.py",
)
"""Without the simulator, which the log's own identity covers, the Kafka runner, and pre-training."""
_REFERENCE_CODE: Final = (
    "stream/simulator",
    "bench/world/reference_learner.py",
    "bench/quality/scores.py",
    "bench/world/ground_truth.py",
)


@dataclass(frozen=True)
class Scores:
    """Log-odds of a click, in the order of the ground truth's slices; NaN where nothing was scored.

    shown: float64 (n,), at the position shown, prequential (scored before training on the page). unexposed,
    candidates: float64, at position 1, scored right before training on the page's batch.
    seconds: training time, without scoring the candidates; 0 where nothing was trained.
    levels: float64 (n, 4), P(level) of the impressions of a `LevelSample` after the last page, for a model that trains
    its text encoder. code: SHA-256 of the code that made the scores.
    """

    shown: Floats
    unexposed: Floats | None = None
    candidates: Floats | None = None
    seconds: float = 0.0
    levels: Floats | None = None
    code: str = ""


# --- files ------------------------------------------------------------------------------------------------------------


def write_scores(path: Path, scores: Scores, identity: str) -> None:
    """Write scores to a safetensors file, with the identity of their settings and the hash of their code."""
    parts = {"shown": scores.shown, "unexposed": scores.unexposed, "candidates": scores.candidates}
    tensors = {name: part for name, part in {**parts, "levels": scores.levels}.items() if part is not None}
    metadata = {"identity": identity, "code": scores.code, "seconds": repr(scores.seconds)}
    staging = path.with_name(path.name + ".part")
    staging.write_bytes(save(tensors, metadata))
    staging.replace(path)


def read_scores(path: Path, identity: str, code: str | None) -> Scores | None:
    """Read cached scores; None if there are none, or other settings or other code made them.

    code: None accepts scores of any code.
    """
    if not path.is_file():
        return None
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        if metadata["identity"] != identity or code not in {None, metadata["code"]}:
            return None
        parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return Scores(**parts, seconds=float(metadata["seconds"]), code=metadata["code"])


def model_identity(truth: GroundTruth, settings: Settings, variant: Variant, encoder: Path) -> str:
    """Everything that a model's scores depend on except the code; the encoder by content, not by path."""
    config = msgspec.to_builtins(trainer_config(settings, variant, encoder))
    parts = {
        "world": truth.world.settings,
        "variant": variant,
        "pipeline": msgspec.to_builtins(settings.pipeline),
        "trainer": config | {"encoder": read_header(encoder_of(variant, encoder)).sha256},
    }
    return msgspec.json.encode(parts).decode()


def model_code() -> str:
    """Hash of the code that a model's scores depend on."""
    return code_sha256(*_MODEL_CODE)


def reference_identity(truth: GroundTruth) -> str:
    """Everything that the reference learner's scores depend on, except the code."""
    return msgspec.json.encode({"world": truth.world.settings}).decode()


def reference_code() -> str:
    """Hash of the code that the reference learner's scores depend on."""
    return code_sha256(*_REFERENCE_CODE)


# --- models -----------------------------------------------------------------------------------------------------------


class ScoreRecordingTrainer:
    """An `ExampleSink` around a trainer that records the score of every impression of the ground truth."""

    def __init__(self, config: TrainerConfig, truth: GroundTruth) -> None:
        self.trainer = Trainer(config, self._on_scores)
        self._truth = truth
        self._candidate_slices = (truth.unexposed, truth.candidates)
        self._shown = np.full(len(truth.shown.page), np.nan)
        self._candidate_scores = tuple(np.full(len(part.page), np.nan) for part in self._candidate_slices)
        self._seconds = 0.0
        self._learns_levels = config.model == ABLATED_MODEL and config.infers_levels
        self._levels: Floats | None = None
        self._last_example_of_query: dict[str, Example] = {}

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Train."""
        start = perf_counter()
        self.trainer.consume(examples, watermark)
        self._seconds += perf_counter() - start

    def flush(self) -> None:
        """Train on the last batch, and infer levels."""
        start = perf_counter()
        self.trainer.flush()
        self._seconds += perf_counter() - start
        if self._learns_levels:
            self._levels = self._infer_levels(LevelSample(self._truth))

    def save(self, folder: Path) -> None:
        """Nothing to save: an interrupted run starts over."""

    def load(self, folder: Path) -> None:
        """Nothing to load."""

    def scores(self) -> Scores:
        """Scores of the whole log.

        Raises:
            PrectrError: an impression of the ground truth is missing from the replay.
        """
        unexposed, candidates = self._candidate_scores
        for name, part in (("shown", self._shown), ("unexposed", unexposed), ("candidates", candidates)):
            if missing := int(np.isnan(part).sum()):
                raise PrectrError(
                    f"{self.trainer.config.model} has no score for {missing} of {len(part)} {name} impressions: the "
                    f"replay did not emit every page of {self._truth.log}. Where pages are an hour apart, the event "
                    "clock waits for a second user and dead-letters some of them: give more --pages, or fewer --days"
                )
        return Scores(self._shown, unexposed, candidates, self._seconds, self._levels, model_code())

    def _on_scores(self, scored: BatchScores) -> None:
        start = perf_counter()
        batch, shown = scored.batch, self._truth.shown
        pages = np.array([self._truth.page_of_request[request] for request in batch.request_ids])
        impressions = np.searchsorted(shown.page, pages)[batch.page_of] + batch.positions - 1
        if not np.array_equal(shown.clicked[impressions], batch.labels.astype(np.bool_)):
            raise PrectrError(
                f"the labels of pages {', '.join(batch.request_ids)} are not the clicks of the ground truth: the "
                "stages or the simulator changed the definition of a click, and metrics would be wrong"
            )
        self._shown[impressions] = scored.logits
        self._score_candidates(batch.examples, pages)
        self._last_example_of_query.update((example.query, example) for example in batch.examples)
        self._seconds -= perf_counter() - start

    def _score_candidates(self, examples: Sequence[Example], pages: Ints) -> None:
        """Score the candidates that the ground truth has for the pages' queries, as if shown at position 1."""
        candidate_examples, slices = [], []
        for example, page in zip(examples, pages.tolist(), strict=True):
            page_slices = tuple(part.of_page(page) for part in self._candidate_slices)
            if any(place.stop > place.start for place in page_slices):
                candidate_examples.append(_with_candidates(example, self._truth, self._candidate_slices, page_slices))
                slices.append(page_slices)
        if not candidate_examples:
            return
        logits, done = self.trainer.score(candidate_examples, position=1), 0
        for page_slices in slices:
            for scores, target in zip(self._candidate_scores, page_slices, strict=True):
                scores[target] = logits[done : done + target.stop - target.start]
                done += target.stop - target.start

    def _infer_levels(self, sample: LevelSample) -> Floats:
        """P(level), float64 (n, 4), that the model would use now to score a sample's impressions.

        The impressions are scored as candidates on the last page of their query, so that the query's exposure counts,
        as it affects levels; the user does not affect them.
        """
        probabilities = np.zeros((len(sample.query), 4))
        for query in np.unique(sample.query).tolist():
            page = self._last_example_of_query[normalise_query(self._truth.world.catalogue.queries[query])]
            matching = np.flatnonzero(sample.query == query)
            for indices in np.split(matching, range(_MAX_ITEMS, len(matching), _MAX_ITEMS)):
                items = _with_items(page, self._truth, sample.item[indices], sample.level[indices])
                probabilities[indices] = self.trainer.explain([items], position=1).levels
        return probabilities


def _with_candidates(
    example: Example, truth: GroundTruth, slices: Sequence[Impressions], page_slices: Sequence[slice]
) -> Example:
    """The same page at the same time with other items, none of them clicked."""
    items = np.concatenate([part.item[target] for part, target in zip(slices, page_slices, strict=True)])
    levels = np.concatenate([part.level[place] for part, place in zip(slices, page_slices, strict=True)])
    return _with_items(example, truth, items, levels)


def _with_items(example: Example, truth: GroundTruth, item: Ints, level: NDArray[np.uint8]) -> Example:
    catalogue = truth.world.catalogue
    page = decode_page(example.page)
    page.items = [
        Item(
            item_id=catalogue.item_ids[index],
            title=catalogue.titles[index],
            relevance=one,
            price=float(catalogue.prices[index]),
            category=catalogue.categories[index],
            brand=catalogue.brands[index],
            position=1,
        )
        for index, one in zip(item.tolist(), level.tolist(), strict=True)
    ]
    return msgspec.structs.replace(example, page=_encode_page(page), levels=level.tobytes(), labels=bytes(len(item)))


def _encode_page(page: ResultPage) -> msgspec.Raw:
    return msgspec.Raw(encode_record(page))


def replay_models(
    truth: GroundTruth,
    run_dir: Path,
    settings: Settings,
    variants: Sequence[Variant],
    encoder: Path,
    progress: Callable[[Replay], None] = lambda replay: None,
) -> dict[Variant, Scores]:
    """Replay the log once through both stages with every variant training on it, and return their scores."""
    sinks: Mapping[str, ScoreRecordingTrainer] = {
        str(number): ScoreRecordingTrainer(trainer_config(settings, variant, encoder), truth)
        for number, variant in enumerate(variants)
    }
    run = Replay(
        [str(truth.log)],
        run_dir,
        settings.pipeline,
        config={},
        sinks=sinks,
        label=LexicalLabeller(),
        options=RunnerOptions(checkpoint_interval=float("inf"), restart=True),
    )
    try:
        run.run(flush=True, progress=progress)
    finally:
        run.close()
    return {variant: sink.scores() for variant, sink in zip(variants, sinks.values(), strict=True)}


# --- baselines, reference learner, oracle -----------------------------------------------------------------------------


def oracle_scores(truth: GroundTruth) -> Scores:
    """Log-odds of the true probabilities."""
    return Scores(
        log_odds(truth.shown.probability),
        log_odds(truth.unexposed.probability),
        log_odds(truth.candidates.probability),
    )


def baseline_scores(truth: GroundTruth) -> dict[str, Scores]:
    """Click rates of the first half by position, and by position and level; only the second half is scored."""
    shown = truth.shown
    late = shown.page >= truth.half
    early = shown.table(~late)
    tables = baseline_tables(shown.table(shown.level), shown.present & early, shown.table(shown.clicked))
    scores = {}
    for name, rates in tables.items():
        odds = log_odds(rates)
        by_level = "level" in name
        scores[name] = Scores(
            np.where(late, odds[shown.position - 1, shown.level], np.nan),
            # Position alone cannot rank candidates that are all scored at position 1.
            odds[0, truth.unexposed.level] if by_level else None,
            odds[0, truth.candidates.level] if by_level else None,
        )
    return scores


def reference_scores(truth: GroundTruth) -> Scores:
    """Prequential scores of the reference learner: test, then train, page by page."""
    learner = ReferenceLearner(truth.world, LearnedParts())
    slices = (truth.shown, truth.unexposed, truth.candidates)
    probabilities = [np.full(len(part.page), np.nan) for part in slices]
    shown = truth.shown
    for page, (user, query) in enumerate(zip(truth.user.tolist(), truth.query.tolist(), strict=True)):
        for part, probability in zip(slices, probabilities, strict=True):
            indices = part.of_page(page)
            if indices.stop > indices.start:
                probability[indices] = learner.score(
                    user, query, part.item[indices], part.level[indices], part.position[indices]
                )
        indices = shown.of_page(page)
        learner.learn(user, query, shown.item[indices], shown.level[indices], shown.clicked[indices])
    of_shown, of_unexposed, of_candidates = map(log_odds, probabilities)
    return Scores(of_shown, of_unexposed, of_candidates, code=reference_code())


def log_odds(probability: NDArray[np.float64]) -> Floats:
    """log p/(1 − p), with p clipped so that the result is finite."""
    bounded = np.clip(probability, 1e-12, 1.0 - 1e-12)
    return np.asarray(np.log(bounded) - np.log1p(-bounded))
