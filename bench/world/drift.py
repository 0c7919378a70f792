"""Concept drift: a world whose queries change in the middle of the log; an online model against frozen copies of it.

Expected log loss (true p against the score, nats per impression, at the position shown) on changed and on other
queries, in bins of pages before and after the change. Subtracting the log loss of the true probability itself leaves
the excess that a model could avoid, so that harder pages do not count against it.
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
from prectr.state.aggregates import NO_COUNTS, NO_SUMS, DecayedSums
from prectr.state.errors import PrectrError, UsageError
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.records import Example, encode_record
from prectr.stream.replay.runner import Replay, RunnerOptions

BIN_PAGES: Final = 1_000
"""Pages per bin."""
BINS_BEFORE: Final = 5
"""Bins before the change; pooled as the reference."""
BINS_AFTER: Final = 10
"""Bins after the change."""
RECOVERY_BINS: Final = 5
"""Number of bins within which a model should have adapted: 5,000 pages."""

MODES: Final = ("online", "frozen weights", "frozen")
"""online: keeps training. frozen weights: weights as of the change, with running aggregates. frozen: the query
aggregates are frozen as well, as last read before the change."""

_ONLINE: Final = "online"


class DriftBins(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the impressions of each of BINS_BEFORE + BINS_AFTER bins.

    impressions: their number. entropy: sum of the expected log loss of the true probability. loss: sum of the expected
    log loss of the scores, by mode; 0 before the change for the frozen modes.
    """

    impressions: list[int]
    entropy: list[float]
    loss: dict[str, list[float]]


class DriftRun(msgspec.Struct, frozen=True, kw_only=True):
    """One model in one world.

    changed, others: bins over pages whose query changed, and over the others. identity, code: hashes of the settings
    and of the code of the run.
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
    """−p·ln q − (1 − p)·ln(1 − q) of each impression, where q = sigmoid(logits)."""
    return np.asarray(np.logaddexp(0.0, logits) - probability * logits)


class QuerySnapshot(NamedTuple):
    """The aggregates of a query."""

    stats: tuple[int, ...]
    decayed: DecayedSums
    clicks: msgspec.Raw


class DriftEvaluator:
    """An `ExampleSink` with an online trainer and a copy of it that stops training at the change."""

    def __init__(self, config: TrainerConfig, truth: GroundTruth, folder: Path, bin_pages: int = BIN_PAGES) -> None:
        """folder: for the temporary checkpoint that is copied at the change."""
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
        """Latest page evaluated so far, in training order."""

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Train."""
        self._trainer.consume(examples, watermark)

    def flush(self) -> None:
        """Train on the last batch."""
        self._trainer.flush()

    def save(self, folder: Path) -> None:
        """Nothing to save: an interrupted run starts over."""

    def load(self, folder: Path) -> None:
        """Nothing to load."""

    def bins(self) -> tuple[DriftBins, DriftBins]:
        """Bins of the changed queries, and of the others.

        Raises:
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
                _with_query_snapshot(example, self._query_snapshots.get(example.query) or _empty_snapshot(example))
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
        # Training order is that of page closes: a page from before the change may follow one from after it.
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


def _empty_snapshot(example: Example) -> QuerySnapshot:
    """Aggregates of a query that was not seen before, with as many half-lives as those of an example."""
    return QuerySnapshot(NO_COUNTS, (NO_SUMS,) * len(example.query_decayed), msgspec.Raw(encode_record([])))


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
    """Replay a log with drift up to `BINS_AFTER` bins after the change, with every variant training on it.

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
        options=RunnerOptions(checkpoint_interval=float("inf"), restart=True),
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
    """Short hash of everything that a run depends on, except the code."""
    return hashlib.sha256(model_identity(truth, settings, variant, encoder).encode()).hexdigest()[:12]


# --- recovery ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class ExcessLoss:
    """Expected log loss minus that of the true probability, mean nats per impression, pooled over runs.

    before: of all bins before the change, pooled. after: of each bin after it, float64 (BINS_AFTER,), by mode.
    """

    before: float
    after: dict[str, Floats]


def pool_bins(bins: Sequence[DriftBins]) -> ExcessLoss:
    """Excess loss over several worlds: sums are pooled before taking ratios."""
    count: Floats = np.array([one.impressions for one in bins], dtype=np.float64).sum(axis=0)
    entropy: Floats = np.array([one.entropy for one in bins]).sum(axis=0)
    excess: dict[str, Floats] = {
        mode: np.array([one.loss[mode] for one in bins]).sum(axis=0) - entropy for mode in MODES
    }
    before = float(excess[_ONLINE][:BINS_BEFORE].sum() / count[:BINS_BEFORE].sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        return ExcessLoss(before, {way: excess[way][BINS_BEFORE:] / count[BINS_BEFORE:] for way in MODES})


def recovered_share(changed: ExcessLoss, others: ExcessLoss) -> dict[str, Floats]:
    """Share of the cost of the change that each mode has recovered, per bin: 0 none, 1 all.

    The cost for a mode is the rise of its excess on the changed queries, minus the rise on the others, which has other
    causes, such as everything else that a frozen model does not learn. The share is 1 − cost / (cost for `frozen`).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        increase = {
            mode: (changed.after[mode] - changed.before) - (others.after[mode] - others.before) for mode in MODES
        }
        return {way: 1.0 - increase[way] / increase["frozen"] for way in MODES}


def unadjusted_recovered_share(changed: ExcessLoss) -> dict[str, Floats]:
    """The same from the changed queries alone: other learning counts as recovery, too."""
    no_change = ExcessLoss(0.0, {mode: np.zeros(BINS_AFTER) for mode in MODES})
    return recovered_share(changed, no_change)
