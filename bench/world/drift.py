"""A world whose queries change their ways at the middle of the log: who learns on, against who was frozen there.

Expected log loss (true p against the score, nats an impression, at the position shown) on the queries that changed and
on those that did not, in bins of pages before and after the change. Its excess over the true probability's own log loss
is what a model does not know, so that harder pages are no loss of anybody's.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.quality.scores import model_code, model_identity
from bench.quality.variants import Variant, trainer_config
from bench.world.ground_truth import Floats, GroundTruth, Ints
from prectr.model.config import TrainerConfig
from prectr.model.training.trainer import BatchScores, Trainer
from prectr.ops.settings.loader import Settings
from prectr.state.aggregates import NO_COUNTS, NO_SUMS
from prectr.state.errors import PrectrError, UsageError
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.records import Example, encode_record
from prectr.stream.replay.runner import Replay, ReplayOptions

BIN_PAGES: Final = 1_000
"""Pages of a bin."""
BINS_BEFORE: Final = 5
"""Bins before the change, together what the model was like until then,"""
BINS_AFTER: Final = 10
"""and bins after it."""
RECOVERY_BINS: Final = 5
"""The bin by whose end a model should have learned the change: 5,000 pages."""

MODES: Final = ("online", "frozen weights", "frozen")
"""online: learns on. frozen weights: weights as of the change, told the running aggregates. frozen: the aggregates of
the queries, too, as they were last read before the change."""

_ONLINE: Final = "online"


class DriftBins(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the impressions of each of BEFORE + AFTER bins.

    impressions: how many. entropy: Σ of the true probability's own expected log loss. loss: the same of each way's
    scores; of the frozen ones 0 before the change.
    """

    impressions: list[int]
    entropy: list[float]
    loss: dict[str, list[float]]


class DriftRun(msgspec.Struct, frozen=True, kw_only=True):
    """One model in one world, in bins of so many pages.

    changed, others: by whether the page's query changed. identity, code: what made it.
    """

    name: str
    track: str
    seed: int
    changed: DriftBins
    others: DriftBins
    bin_pages: int = BIN_PAGES
    identity: str = ""
    code: str = ""


def expected_log_loss(logits: Floats, probability: Floats) -> Floats:
    """−p·ln q − (1 − p)·ln(1 − q) of each showing, q the probability of the logits."""
    return np.asarray(np.logaddexp(0.0, logits) - probability * logits)


class QuerySnapshot(NamedTuple):
    """What the aggregates say of a query."""

    stats: tuple[int, ...]
    decayed: tuple[float, ...]
    clicks: msgspec.Raw


_EMPTY_QUERY: Final = QuerySnapshot(NO_COUNTS, NO_SUMS, msgspec.Raw(encode_record([])))


class DriftEvaluator:
    """An `ExampleSink`: a trainer that learns on, and two copies of it that stop learning at the change."""

    def __init__(self, config: TrainerConfig, truth: GroundTruth, folder: Path, bin_pages: int = BIN_PAGES) -> None:
        """folder: where the copy is made."""
        self._bin_pages = bin_pages
        self._trainer = Trainer(config, self._on_scores)
        self._frozen: Trainer | None = None
        self._truth = truth
        self._folder = folder
        self._query_snapshots: dict[str, QuerySnapshot] = {}
        self._sums = np.zeros((2, 2 + len(MODES), BINS_BEFORE + BINS_AFTER))
        appeal = truth.world.click_weights
        self._changed = appeal.kind != appeal.second_half_kind
        self.last_evaluated_page = -1
        """The last page that was measured, in the order of learning."""

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Train."""
        self._trainer.consume(examples, watermark)

    def flush(self) -> None:
        """Train the last batch."""
        self._trainer.flush()

    def save(self, folder: Path) -> None:
        """Nothing: a run that was cut off starts again."""

    def load(self, folder: Path) -> None:
        """Nothing was saved."""

    def bins(self) -> tuple[DriftBins, DriftBins]:
        """Of the queries that changed, and of the others.

        PrectrError: the log ended before the change.
        """
        if self._frozen is None:
            raise PrectrError(f"the log has {self._truth.pages} pages and none after the change: give more --pages")
        changed, others = (
            DriftBins(
                impressions=sums[0].astype(int).tolist(),
                entropy=sums[1].tolist(),
                loss={mode: loss.tolist() for mode, loss in zip(MODES, sums[2:], strict=True)},
            )
            for sums in self._sums
        )
        return changed, others

    def _on_scores(self, scored: BatchScores) -> None:
        truth, batch = self._truth, scored.batch
        pages = np.array([truth.page_of_request[request] for request in batch.request_ids])
        self.last_evaluated_page = int(pages.max())
        if self._frozen is None:
            if (pages >= truth.half).any():
                self._freeze()
            else:
                self._query_snapshots.update((example.query, _query_snapshot(example)) for example in batch.examples)
        offset = pages - truth.half
        number = np.floor_divide(offset, self._bin_pages) + BINS_BEFORE
        if not ((number >= 0) & (number < BINS_BEFORE + BINS_AFTER)).any():
            return
        logits = {_ONLINE: scored.logits}
        if self._frozen is not None:
            logits["frozen weights"] = self._frozen.score(batch.examples, position=None)
            with_frozen_queries = [
                _with_query_snapshot(example, self._query_snapshots.get(example.query, _EMPTY_QUERY))
                for example in batch.examples
            ]
            logits["frozen"] = self._frozen.score(with_frozen_queries, position=None)
        self._add(pages, number, batch.page_of, batch.positions, logits)

    def _add(
        self, pages: Ints, number: Ints, page_of: Ints, positions: Ints, logits: Mapping[str, NDArray[np.float64]]
    ) -> None:
        truth = self._truth
        impressions = np.searchsorted(truth.shown.page, pages)[page_of] + positions - 1
        probability = truth.shown.probability[impressions]
        changed = self._changed[truth.query[pages]][page_of]
        bins = number[page_of]
        inside = (bins >= 0) & (bins < BINS_BEFORE + BINS_AFTER)
        true_logits = np.log(np.clip(probability, 1e-12, 1)) - np.log1p(-np.clip(probability, 0, 1 - 1e-12))
        values = [np.ones(len(bins)), expected_log_loss(true_logits, probability)]
        # A page from before the change may be learned from after the first one behind it.
        late = (pages >= truth.half)[page_of]
        for mode in MODES:
            known = expected_log_loss(logits[mode], probability) if mode in logits else np.zeros(len(bins))
            values.append(known if mode == _ONLINE else np.where(late, known, 0.0))
        for row, which in enumerate((changed, ~changed)):
            chosen = which & inside
            for column, value in enumerate(values):
                np.add.at(self._sums[row, column], bins[chosen], value[chosen])

    def _freeze(self) -> None:
        self._folder.mkdir(parents=True)
        self._trainer.save(self._folder)
        self._frozen = Trainer(self._trainer.config)
        self._frozen.load(self._folder)
        shutil.rmtree(self._folder)


def _query_snapshot(example: Example) -> QuerySnapshot:
    return QuerySnapshot(example.query_stats, example.query_decayed, example.query_clicks)


def _with_query_snapshot(example: Example, snapshot: QuerySnapshot) -> Example:
    return msgspec.structs.replace(
        example, query_stats=snapshot.stats, query_decayed=snapshot.decayed, query_clicks=snapshot.clicks
    )


def run_drift(
    truth: GroundTruth,
    run_dir: Path,
    settings: Settings,
    variants: Sequence[Variant],
    encoder: Path,
    bin_pages: int = BIN_PAGES,
) -> list[DriftRun]:
    """Replay a log with drift until `AFTER` bins behind the change, every variant learning from it.

    Raises:
        UsageError: the world has no drift.
        PrectrError: the log ends before the change.
    """
    world = truth.world.settings
    if not world.drift:
        raise UsageError("the world has no drift: simulate it with --drift")
    evaluators = {
        variant: DriftEvaluator(
            trainer_config(settings, variant, encoder), truth, run_dir / f"frozen-{number}", bin_pages
        )
        for number, variant in enumerate(variants)
    }
    last_needed_page = truth.half + BINS_AFTER * bin_pages + settings.trainer.batch_pages
    run = Replay(
        [str(truth.log)],
        run_dir,
        settings.pipeline,
        config={},
        sinks={str(number): watch for number, watch in enumerate(evaluators.values())},
        label=LexicalLabeller(),
        options=ReplayOptions(checkpoint_interval=float("inf"), restart=True),
    )
    try:
        run.run(
            flush=True, stop=lambda: min(watch.last_evaluated_page for watch in evaluators.values()) > last_needed_page
        )
    finally:
        run.close()
    found = []
    for variant, evaluator in evaluators.items():
        changed, others = evaluator.bins()
        found.append(
            DriftRun(
                name=variant.name,
                track=variant.track,
                seed=world.seed,
                changed=changed,
                others=others,
                bin_pages=bin_pages,
                identity=drift_identity(truth, settings, variant, encoder),
                code=model_code(),
            )
        )
    return found


def drift_identity(truth: GroundTruth, settings: Settings, variant: Variant, encoder: Path) -> str:
    """A short name of everything that a run depends on, but the code."""
    return hashlib.sha256(model_identity(truth, settings, variant, encoder).encode()).hexdigest()[:12]


# --- what they come to ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class ExcessLoss:
    """Expected log loss over what cannot be known, mean nats an impression, pooled over runs.

    before: of the bins before the change together. after: of each bin after it, by way.
    """

    before: float
    after: dict[str, Floats]


def pool_bins(bins: Sequence[DriftBins]) -> ExcessLoss:
    """The excess over bins of several worlds: sums before ratios."""
    count: Floats = np.array([one.impressions for one in bins], dtype=np.float64).sum(axis=0)
    entropy: Floats = np.array([one.entropy for one in bins]).sum(axis=0)
    excess: dict[str, Floats] = {
        mode: np.array([one.loss[mode] for one in bins]).sum(axis=0) - entropy for mode in MODES
    }
    before = float(excess[_ONLINE][:BINS_BEFORE].sum() / count[:BINS_BEFORE].sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        return ExcessLoss(before, {way: excess[way][BINS_BEFORE:] / count[BINS_BEFORE:] for way in MODES})


def recovered_share(changed: ExcessLoss, others: ExcessLoss) -> dict[str, Floats]:
    """What each way has won back of what the change cost, in each bin: 0 where nothing, 1 where all.

    What the change cost `frozen` is the rise of its excess on the queries that changed, less the rise on the others,
    which comes from everything else that a frozen model does not learn; and so for each way.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        increase = {
            mode: (changed.after[mode] - changed.before) - (others.after[mode] - others.before) for mode in MODES
        }
        return {way: 1.0 - increase[way] / increase["frozen"] for way in MODES}


def unadjusted_recovered_share(changed: ExcessLoss) -> dict[str, Floats]:
    """The same from the queries that changed alone; what is learned besides counts as won back, too."""
    no_change = ExcessLoss(0.0, {mode: np.zeros(BINS_AFTER) for mode in MODES})
    return recovered_share(changed, no_change)
