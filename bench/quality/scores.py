"""Scores of everything that is measured: how they are made, and the files that keep them between runs."""

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
from bench.quality.variants import ABLATED, Contender, encoder_of, trainer_config
from bench.world.benchmark import floor_tables
from bench.world.ground_truth import Floats, Ints, Showings, Truth
from bench.world.reference_learner import Learns, ReferenceLearner
from bench.world.stage_one import LevelSample
from prectr.model.config import TrainerConfig
from prectr.model.text.encoder.artifact import read_header
from prectr.model.training.trainer import BatchScores, Trainer
from prectr.ops.settings.loader import Settings
from prectr.state.errors import PrectrError
from prectr.stream.events.contract import Impression, Item
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.events.query_key import normalise_query
from prectr.stream.records import Example, decode_page, encode_record
from prectr.stream.replay.runner import Replay

REFERENCE: Final = "reference learner"
_MOST_ITEMS: Final = 200
"""Of a page."""
_MODEL_CODE: Final = (
    *sorted(
        str(path.relative_to(ROOT))
        for package in ("stream", "model", "state")
        for path in (ROOT / package).glob("*.py")
    ),
    "stream/readers",
    *(f"model/text/encoder/{name}.py" for name in ("folder", "graded", "network", "tokens")),
    "bench/quality/scores.py",
    "bench/world/ground_truth.py",
)
"""Not the simulator, which a log depends on by itself, nor Kafka's part, nor pre-training."""
_REFERENCE_CODE: Final = (
    "stream/simulator",
    "bench/world/reference_learner.py",
    "bench/quality/scores.py",
    "bench/world/ground_truth.py",
)


@dataclass(frozen=True)
class Scores:
    """Log-odds of a click, in the order of the truth's slices; NaN where nothing was scored.

    shown: float64 (n,), at the position shown, made before the page was learned from. unexposed, candidates:
    float64, at position 1, by what was known right before the page's batch was learned from.
    seconds: what training took, the scoring of imagined candidates left out; 0 where nothing was trained.
    levels: float64 (n, 4), P(level) of the showings of a `LevelSample` after the last page, of a model whose text
    encoder learns on. code: of what made the scores.
    """

    shown: Floats
    unexposed: Floats | None = None
    candidates: Floats | None = None
    seconds: float = 0.0
    levels: Floats | None = None
    code: str = ""


# --- files ------------------------------------------------------------------------------------------------------------


def write_scores(path: Path, scores: Scores, identity: str) -> None:
    """Keep scores in a file (safetensors), together with what made them: settings, and `scores.code`."""
    parts = {"shown": scores.shown, "unexposed": scores.unexposed, "candidates": scores.candidates}
    tensors = {name: part for name, part in {**parts, "levels": scores.levels}.items() if part is not None}
    metadata = {"identity": identity, "code": scores.code, "seconds": repr(scores.seconds)}
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(save(tensors, metadata))
    aside.replace(path)


def read_scores(path: Path, identity: str, code: str | None) -> Scores | None:
    """Scores that were kept, None if there are none or they were made by other settings or other code.

    code: None takes what any code made.
    """
    if not path.is_file():
        return None
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        if metadata["identity"] != identity or code not in {None, metadata["code"]}:
            return None
        parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    return Scores(**parts, seconds=float(metadata["seconds"]), code=metadata["code"])


def model_identity(truth: Truth, settings: Settings, contender: Contender, encoder: Path) -> str:
    """Everything that a model's scores depend on, but the code; the encoder by what it is, not by where it lies."""
    config = msgspec.to_builtins(trainer_config(settings, contender, encoder))
    parts = {
        "world": truth.world.settings,
        "contender": contender,
        "pipeline": msgspec.to_builtins(settings.pipeline),
        "trainer": config | {"encoder": read_header(encoder_of(contender, encoder)).sha256},
    }
    return msgspec.json.encode(parts).decode()


def model_code() -> str:
    """What of the code a model's scores depend on."""
    return code_sha256(*_MODEL_CODE)


def reference_identity(truth: Truth) -> str:
    """Everything that the reference learner's scores depend on, but the code."""
    return msgspec.json.encode({"world": truth.world.settings}).decode()


def reference_code() -> str:
    """What of the code the reference learner's scores depend on."""
    return code_sha256(*_REFERENCE_CODE)


# --- models -----------------------------------------------------------------------------------------------------------


class MeasuredTrainer:
    """An `ExampleSink` around a trainer that keeps the score of every showing of the truth."""

    def __init__(self, config: TrainerConfig, truth: Truth) -> None:
        self.trainer = Trainer(config, self._measure)
        self._truth = truth
        self._imagined = (truth.unexposed, truth.candidates)
        self._shown = np.full(len(truth.shown.page), np.nan)
        self._others = tuple(np.full(len(part.page), np.nan) for part in self._imagined)
        self._seconds = 0.0
        self._learns_levels = config.model == ABLATED and config.infers_levels
        self._levels: Floats | None = None
        self._last: dict[str, Example] = {}
        """Of each query."""

    def consume(self, examples: Sequence[Example], line: int) -> None:
        """Train."""
        start = perf_counter()
        self.trainer.consume(examples, line)
        self._seconds += perf_counter() - start

    def flush(self) -> None:
        """Train the last batch, and ask for levels."""
        start = perf_counter()
        self.trainer.flush()
        self._seconds += perf_counter() - start
        if self._learns_levels:
            self._levels = self._told(LevelSample(self._truth))

    def save(self, folder: Path) -> None:
        """Nothing: a run that was cut off starts again."""

    def load(self, folder: Path) -> None:
        """Nothing was saved."""

    def scores(self) -> Scores:
        """The scores of the whole log.

        Raises:
            PrectrError: a showing of the truth never came by in the replay.
        """
        unexposed, candidates = self._others
        for name, part in (("shown", self._shown), ("unexposed", unexposed), ("candidates", candidates)):
            if missing := int(np.isnan(part).sum()):
                raise PrectrError(
                    f"{self.trainer.config.model} has no score of {missing} of {len(part)} {name} showings: the replay "
                    f"did not put out every page of {self._truth.log}. Where pages are an hour apart the clock waits "
                    "for a second user and drops some of them: give more --pages, or fewer --days"
                )
        return Scores(self._shown, unexposed, candidates, self._seconds, self._levels, model_code())

    def _measure(self, scored: BatchScores) -> None:
        start = perf_counter()
        batch, shown = scored.batch, self._truth.shown
        pages = np.array([self._truth.page_of_request[request] for request in batch.request_ids])
        showings = np.searchsorted(shown.page, pages)[batch.page_of] + batch.positions - 1
        if not np.array_equal(shown.clicked[showings], batch.labels.astype(np.bool_)):
            raise PrectrError(
                f"the labels of pages {', '.join(batch.request_ids)} are not the clicks of the truth: the stages or "
                "the simulator have changed what a click is; quality would be measured against the wrong ones"
            )
        self._shown[showings] = scored.logits
        self._imagine(batch.examples, pages)
        self._last.update((example.query, example) for example in batch.examples)
        self._seconds -= perf_counter() - start

    def _imagine(self, examples: Sequence[Example], pages: Ints) -> None:
        """Score the candidates of the pages' queries that the truth knows of, as if shown first."""
        asked, places = [], []
        for example, page in zip(examples, pages.tolist(), strict=True):
            wanted = tuple(part.of_page(page) for part in self._imagined)
            if any(place.stop > place.start for place in wanted):
                asked.append(_with_candidates(example, self._truth, self._imagined, wanted))
                places.append(wanted)
        if not asked:
            return
        logits, done = self.trainer.score(asked, position=1), 0
        for wanted in places:
            for others, place in zip(self._others, wanted, strict=True):
                others[place] = logits[done : done + place.stop - place.start]
                done += place.stop - place.start

    def _told(self, sample: LevelSample) -> Floats:
        """P(level), float64 (n, 4), that the scores of a sample's showings would rest on now.

        What is put on the last page of each query is read as any candidates are: what the query has shown before moves
        its levels, the user does not.
        """
        told = np.zeros((len(sample.query), 4))
        for query in np.unique(sample.query).tolist():
            page = self._last[normalise_query(self._truth.world.catalogue.queries[query])]
            every = np.flatnonzero(sample.query == query)
            for places in np.split(every, range(_MOST_ITEMS, len(every), _MOST_ITEMS)):
                items = _with_items(page, self._truth, sample.item[places], sample.level[places])
                told[places] = self.trainer.explain([items], position=1).levels
        return told


def _with_candidates(example: Example, truth: Truth, slices: Sequence[Showings], places: Sequence[slice]) -> Example:
    """The same page at the same moment, with other items on it, none of them clicked."""
    items = np.concatenate([part.item[place] for part, place in zip(slices, places, strict=True)])
    levels = np.concatenate([part.level[place] for part, place in zip(slices, places, strict=True)])
    return _with_items(example, truth, items, levels)


def _with_items(example: Example, truth: Truth, item: Ints, level: NDArray[np.uint8]) -> Example:
    catalogue = truth.world.catalogue
    page = decode_page(example.page)
    page.items = [
        Item(
            item_id=catalogue.item_ids[place],
            title=catalogue.titles[place],
            relevance=one,
            price=float(catalogue.prices[place]),
            category=catalogue.categories[place],
            brand=catalogue.brands[place],
            position=1,
        )
        for place, one in zip(item.tolist(), level.tolist(), strict=True)
    ]
    return msgspec.structs.replace(example, page=_raw(page), levels=level.tobytes(), labels=bytes(len(item)))


def _raw(page: Impression) -> msgspec.Raw:
    return msgspec.Raw(encode_record(page))


def replay_models(
    truth: Truth,
    run_dir: Path,
    settings: Settings,
    contenders: Sequence[Contender],
    encoder: Path,
    progress: Callable[[Replay], None] = lambda replay: None,
) -> dict[Contender, Scores]:
    """Replay the log once through both stages, every contender learning from it, and give their scores."""
    sinks: Mapping[str, MeasuredTrainer] = {
        str(number): MeasuredTrainer(trainer_config(settings, contender, encoder), truth)
        for number, contender in enumerate(contenders)
    }
    run = Replay(
        [str(truth.log)],
        run_dir,
        settings.pipeline,
        config={},
        sinks=sinks,
        label=LexicalLabeller(),
        cut_every=float("inf"),
        restart=True,
    )
    try:
        run.run(flush=True, progress=progress)
    finally:
        run.close()
    return {contender: sink.scores() for contender, sink in zip(contenders, sinks.values(), strict=True)}


# --- what the models stand between ------------------------------------------------------------------------------------


def oracle_scores(truth: Truth) -> Scores:
    """The true probabilities themselves."""
    return Scores(
        log_odds(truth.shown.probability),
        log_odds(truth.unexposed.probability),
        log_odds(truth.candidates.probability),
    )


def floor_scores(truth: Truth) -> dict[str, Scores]:
    """Click rates of the first half by position, and by position and level; the first half itself is not scored."""
    shown = truth.shown
    late = shown.page >= truth.half
    early = shown.table(~late)
    tables = floor_tables(shown.table(shown.level), shown.present & early, shown.table(shown.clicked))
    scores = {}
    for name, rates in tables.items():
        odds = log_odds(rates)
        by_level = "level" in name
        scores[name] = Scores(
            np.where(late, odds[shown.position - 1, shown.level], np.nan),
            # Position alone says nothing of candidates that all stand at the same one.
            odds[0, truth.unexposed.level] if by_level else None,
            odds[0, truth.candidates.level] if by_level else None,
        )
    return scores


def reference_scores(truth: Truth) -> Scores:
    """The reference learner's, page by page: test, then update."""
    learner = ReferenceLearner(truth.world, Learns())
    slices = (truth.shown, truth.unexposed, truth.candidates)
    probabilities = [np.full(len(part.page), np.nan) for part in slices]
    shown = truth.shown
    for page, (user, query) in enumerate(zip(truth.user.tolist(), truth.query.tolist(), strict=True)):
        for part, probability in zip(slices, probabilities, strict=True):
            at = part.of_page(page)
            if at.stop > at.start:
                probability[at] = learner.score(user, query, part.item[at], part.level[at], part.position[at])
        at = shown.of_page(page)
        learner.learn(user, query, shown.item[at], shown.level[at], shown.clicked[at])
    of_shown, of_unexposed, of_candidates = map(log_odds, probabilities)
    return Scores(of_shown, of_unexposed, of_candidates, code=reference_code())


def log_odds(probability: NDArray[np.float64]) -> Floats:
    """log p/(1 − p), finite for the p of a learner that is all but sure."""
    bounded = np.clip(probability, 1e-12, 1.0 - 1e-12)
    return np.asarray(np.log(bounded) - np.log1p(-bounded))
