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
from bench.quality.variants import Contender, trainer_config
from bench.world.ground_truth import Floats, Ints, Truth
from prectr.model.config import TrainerConfig
from prectr.model.training.trainer import BatchScores, Trainer
from prectr.ops.settings.loader import Settings
from prectr.state.aggregates import NO_COUNTS, NO_SUMS
from prectr.state.errors import PrectrError, UsageError
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.records import Example, encode_record
from prectr.stream.replay.runner import Replay

BIN: Final = 1_000
"""Pages of a bin."""
BEFORE: Final = 5
"""Bins before the change, together what the model was like until then,"""
AFTER: Final = 10
"""and bins after it."""
WITHIN: Final = 5
"""The bin by whose end a model should have learned the change: 5,000 pages."""

WAYS: Final = ("online", "frozen weights", "frozen")
"""online: learns on. frozen weights: weights as of the change, told the running aggregates. frozen: the aggregates of
the queries, too, as they were last read before the change."""

_AS_IT_WAS: Final = "online"


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
    bin_pages: int = BIN
    identity: str = ""
    code: str = ""


def expected_log_loss(logits: Floats, probability: Floats) -> Floats:
    """−p·ln q − (1 − p)·ln(1 − q) of each showing, q the probability of the logits."""
    return np.asarray(np.logaddexp(0.0, logits) - probability * logits)


class QueryPast(NamedTuple):
    """What the aggregates say of a query."""

    stats: tuple[int, ...]
    decayed: tuple[float, ...]
    clicks: msgspec.Raw


_NO_PAST: Final = QueryPast(NO_COUNTS, NO_SUMS, msgspec.Raw(encode_record([])))


class DriftWatch:
    """An `ExampleSink`: a trainer that learns on, and two copies of it that stop learning at the change."""

    def __init__(self, config: TrainerConfig, truth: Truth, folder: Path, bin_pages: int = BIN) -> None:
        """folder: where the copy is made."""
        self._bin_pages = bin_pages
        self._trainer = Trainer(config, self._measure)
        self._frozen: Trainer | None = None
        self._truth = truth
        self._folder = folder
        self._past: dict[str, QueryPast] = {}
        self._sums = np.zeros((2, 2 + len(WAYS), BEFORE + AFTER))
        appeal = truth.world.appeal
        self._changed = appeal.kind != appeal.late_kind
        self.last_page = -1
        """The last page that was measured, in the order of learning."""

    def consume(self, examples: Sequence[Example], line: int) -> None:
        """Train."""
        self._trainer.consume(examples, line)

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
                loss={way: loss.tolist() for way, loss in zip(WAYS, sums[2:], strict=True)},
            )
            for sums in self._sums
        )
        return changed, others

    def _measure(self, scored: BatchScores) -> None:
        truth, batch = self._truth, scored.batch
        pages = np.array([truth.page_of_request[request] for request in batch.request_ids])
        self.last_page = int(pages.max())
        if self._frozen is None:
            if (pages >= truth.half).any():
                self._freeze()
            else:
                self._past.update((example.query, _past(example)) for example in batch.examples)
        offset = pages - truth.half
        number = np.floor_divide(offset, self._bin_pages) + BEFORE
        if not ((number >= 0) & (number < BEFORE + AFTER)).any():
            return
        logits = {_AS_IT_WAS: scored.logits}
        if self._frozen is not None:
            logits["frozen weights"] = self._frozen.score(batch.examples, position=None)
            as_of = [_with_past(example, self._past.get(example.query, _NO_PAST)) for example in batch.examples]
            logits["frozen"] = self._frozen.score(as_of, position=None)
        self._add(pages, number, batch.page_of, batch.positions, logits)

    def _add(
        self, pages: Ints, number: Ints, page_of: Ints, positions: Ints, logits: Mapping[str, NDArray[np.float64]]
    ) -> None:
        truth = self._truth
        showings = np.searchsorted(truth.shown.page, pages)[page_of] + positions - 1
        probability = truth.shown.probability[showings]
        changed = self._changed[truth.query[pages]][page_of]
        bins = number[page_of]
        inside = (bins >= 0) & (bins < BEFORE + AFTER)
        truly = np.log(np.clip(probability, 1e-12, 1)) - np.log1p(-np.clip(probability, 0, 1 - 1e-12))
        values = [np.ones(len(bins)), expected_log_loss(truly, probability)]
        # A page from before the change may be learned from after the first one behind it.
        late = (pages >= truth.half)[page_of]
        for way in WAYS:
            known = expected_log_loss(logits[way], probability) if way in logits else np.zeros(len(bins))
            values.append(known if way == _AS_IT_WAS else np.where(late, known, 0.0))
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


def _past(example: Example) -> QueryPast:
    return QueryPast(example.query_stats, example.query_decayed, example.query_clicks)


def _with_past(example: Example, past: QueryPast) -> Example:
    return msgspec.structs.replace(
        example, query_stats=past.stats, query_decayed=past.decayed, query_clicks=past.clicks
    )


def run_drift(
    truth: Truth,
    run_dir: Path,
    settings: Settings,
    contenders: Sequence[Contender],
    encoder: Path,
    bin_pages: int = BIN,
) -> list[DriftRun]:
    """Replay a log with drift until `AFTER` bins behind the change, every contender learning from it.

    Raises:
        UsageError: the world has no drift.
        PrectrError: the log ends before the change.
    """
    world = truth.world.settings
    if not world.drift:
        raise UsageError("the world has no drift: simulate it with --drift")
    watches = {
        contender: DriftWatch(
            trainer_config(settings, contender, encoder), truth, run_dir / f"frozen-{number}", bin_pages
        )
        for number, contender in enumerate(contenders)
    }
    enough = truth.half + AFTER * bin_pages + settings.trainer.batch_pages
    run = Replay(
        [str(truth.log)],
        run_dir,
        settings.pipeline,
        config={},
        sinks={str(number): watch for number, watch in enumerate(watches.values())},
        label=LexicalLabeller(),
        cut_every=float("inf"),
        restart=True,
    )
    try:
        run.run(flush=True, stop=lambda: min(watch.last_page for watch in watches.values()) > enough)
    finally:
        run.close()
    found = []
    for contender, watch in watches.items():
        changed, others = watch.bins()
        found.append(
            DriftRun(
                name=contender.name,
                track=contender.track,
                seed=world.seed,
                changed=changed,
                others=others,
                bin_pages=bin_pages,
                identity=drift_identity(truth, settings, contender, encoder),
                code=model_code(),
            )
        )
    return found


def drift_identity(truth: Truth, settings: Settings, contender: Contender, encoder: Path) -> str:
    """A short name of everything that a run depends on, but the code."""
    return hashlib.sha256(model_identity(truth, settings, contender, encoder).encode()).hexdigest()[:12]


# --- what they come to ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Excess:
    """Expected log loss over what cannot be known, mean nats an impression, pooled over runs.

    before: of the bins before the change together. after: of each bin after it, by way.
    """

    before: float
    after: dict[str, Floats]


def pool(bins: Sequence[DriftBins]) -> Excess:
    """The excess over bins of several worlds: sums before ratios."""
    count: Floats = np.array([one.impressions for one in bins], dtype=np.float64).sum(axis=0)
    entropy: Floats = np.array([one.entropy for one in bins]).sum(axis=0)
    excess: dict[str, Floats] = {way: np.array([one.loss[way] for one in bins]).sum(axis=0) - entropy for way in WAYS}
    before = float(excess[_AS_IT_WAS][:BEFORE].sum() / count[:BEFORE].sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        return Excess(before, {way: excess[way][BEFORE:] / count[BEFORE:] for way in WAYS})


def won_back(changed: Excess, others: Excess) -> dict[str, Floats]:
    """What each way has won back of what the change cost, in each bin: 0 where nothing, 1 where all.

    What the change cost `frozen` is the rise of its excess on the queries that changed, less the rise on the others,
    which comes from everything else that a frozen model does not learn; and so for each way.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rise = {way: (changed.after[way] - changed.before) - (others.after[way] - others.before) for way in WAYS}
        return {way: 1.0 - rise[way] / rise["frozen"] for way in WAYS}


def plainly_won_back(changed: Excess) -> dict[str, Floats]:
    """The same from the queries that changed alone; what is learned besides counts as won back, too."""
    nothing = Excess(0.0, {way: np.zeros(AFTER) for way in WAYS})
    return won_back(changed, nothing)
