"""The result of `prectr rank`: the ranked candidates, with the parts of each score."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from prectr.model.features.batch import NO_PRICE, Floats, price_band
from prectr.model.quality.explanation import Explanation
from prectr.ops.report.levels import by_level
from prectr.state.aggregates import LEVELS, LevelCounts
from prectr.state.errors import PrectrError
from prectr.stream.events.contract import Item

RelevanceSource = Literal["inferred", "given", "labelled"]
"""The source of a candidate's relevance level: the model (from the text), the file, or the stages' labeller."""

ByLevel = dict[str, float]
"""A number for each relevance level, "1" to "4"."""


class Preference(msgspec.Struct, frozen=True, kw_only=True):
    """Which relevance levels a user, or all users of a query, click.

    known: whether the state has an entry. impressions, clicks: by level, of closed pages. rates: click rates by level,
    smoothed towards `prior_rates`, those of the candidates' categories (both means over the candidates). preferred: of
    the levels with impressions, the one with the highest smoothed rate; null without any. past_clicks: number of clicks
    of the user, or of stored last clicks of the query.
    """

    name: str
    known: bool
    impressions: dict[str, int]
    clicks: dict[str, int]
    rates: ByLevel
    prior_rates: ByLevel
    preferred: int | None
    past_clicks: int


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A ranked candidate.

    click_probability: at the position of the ranking. log_odds: of it. relevance_level: the most likely level.
    level_probabilities: P(level). click_given_level: P(click | level) of a model that mixes over levels; then
    click_probability is the sum of level_probabilities × click_given_level. incentive: τ at `relevance_level`,
    incentives: τ at every level: added to the log-odds of a click, from the clicks of this user and of all users of
    the query. user_rate, query_rate, category_rate: smoothed click rates at `relevance_level`.
    """

    rank: int
    item_id: str
    title: str | None
    category: str | None
    brand: str | None
    price: float | None
    click_probability: float
    log_odds: float
    relevance_level: int
    relevance_source: RelevanceSource
    level_probabilities: ByLevel
    click_given_level: ByLevel | None
    incentive: float | None
    incentives: ByLevel | None
    user_rate: float
    query_rate: float
    category_rate: float


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """What `prectr rank --json` writes.

    query: normalised. as_of: time of the ranking, ms since the epoch. complete_up_to: close time (ms) up to which pages
    of the query are counted; null if all are. candidates: their number. ranked: the candidates, best first. notes:
    remarks.
    """

    query: str
    user_id: str
    position: int
    as_of: int
    complete_up_to: int | None
    model: str
    without: list[str]
    checkpoint: str
    pages_trained: int
    user_preference: Preference
    query_preference: Preference
    candidates: int
    ranked: list[Ranked]
    notes: list[str]


def rank_items(items: Sequence[Item], explanation: Explanation, sources: Sequence[RelevanceSource]) -> list[Ranked]:
    """Sort the candidates by descending click probability; ties keep their order.

    Args:
        items: the candidates.
        explanation: their scores.
        sources: of the relevance level of each candidate.

    Raises:
        PrectrError: a score is not a number.
    """
    if not np.isfinite(explanation.log_odds).all():
        invalid = items[int(np.flatnonzero(~np.isfinite(explanation.log_odds))[0])]
        raise PrectrError(
            f"the score of candidate {invalid.item_id!r} is not a number: the model is corrupt; train a new one"
        )
    order = np.argsort(-explanation.log_odds, kind="stable").tolist()
    return [_ranked(rank, index, items[index], explanation, sources[index]) for rank, index in enumerate(order, 1)]


def _ranked(rank: int, index: int, item: Item, explanation: Explanation, source: RelevanceSource) -> Ranked:
    likeliest = int(explanation.levels[index].argmax())
    rates = explanation.rates
    return Ranked(
        rank=rank,
        item_id=item.item_id,
        title=item.title,
        category=item.category,
        brand=item.brand,
        price=item.price,
        click_probability=float(explanation.probability[index]),
        log_odds=float(explanation.log_odds[index]),
        relevance_level=likeliest + 1,
        relevance_source=source,
        level_probabilities=by_level(explanation.levels[index]),
        click_given_level=None
        if explanation.click_given_level is None
        else by_level(explanation.click_given_level[index]),
        incentive=None if explanation.incentive is None else float(explanation.incentive[index, likeliest]),
        incentives=None if explanation.incentive is None else by_level(explanation.incentive[index]),
        user_rate=float(rates.user[index, likeliest]),
        query_rate=float(rates.query[index, likeliest]),
        category_rate=float(rates.category[index, likeliest]),
    )


def preference(
    name: str, *, known: bool, stats: LevelCounts, rates: Floats, prior_rates: Floats, past_clicks: int
) -> Preference:
    """Build the preference of a user or query. rates, prior_rates: float64[N, 4], smoothed, of each candidate."""
    smoothed = rates.mean(axis=0)
    shown = np.array(stats[:4]) > 0
    return Preference(
        name=name,
        known=known,
        impressions=_counts(stats[:4]),
        clicks=_counts(stats[4:]),
        rates=by_level(smoothed),
        prior_rates=by_level(prior_rates.mean(axis=0)),
        preferred=int(np.where(shown, smoothed, -1.0).argmax()) + 1 if shown.any() else None,
        past_clicks=past_clicks,
    )


_NO_TITLE: Final = "no title or an empty one: their level follows from the query alone"
_INVALID_PRICE: Final = "an invalid price (not a positive number): scored as without price"


_CATEGORIES_NAMED: Final = 3


def candidate_notes(items: Sequence[Item], sources: Sequence[RelevanceSource], explanation: Explanation) -> list[str]:
    """Remarks on the candidates."""
    counts: Mapping[str, int] = {
        _INVALID_PRICE: sum(item.price is not None and price_band(item.price) == NO_PRICE for item in items),
        _NO_TITLE: sum(not (item.title or "").strip() for item in items),
    }
    notes = [f"{count:,} of {len(items):,} candidates have {problem}" for problem, count in counts.items() if count]
    labelled = sources.count("labelled")
    if labelled:
        notes.append(
            f"{labelled:,} of {len(items):,} candidates have no relevance, which this model needs as input: the "
            "stages' labeller has set it from the words of query and title. To infer it from the text, train prectr or "
            'prectr-v2, or set level_source = "inferred"'
        )
    ignored = sum(item.relevance is not None for item in items)
    if ignored and "inferred" in sources:
        notes.append(f"the relevance of {ignored:,} candidates is ignored: this model infers it from the text")
    return notes + _never_shown_notes(items, explanation)


def _never_shown_notes(items: Sequence[Item], explanation: Explanation) -> list[str]:
    """Remarks on candidates of a level or category that the model has not learned from."""
    notes = []
    learned, likeliest = explanation.learned_levels, explanation.levels.argmax(axis=1)
    unlearned = np.flatnonzero(~learned[likeliest])
    if learned.any() and len(unlearned):
        levels = " and ".join(str(level + 1) for level in np.unique(likeliest[unlearned]))
        notes.append(
            f"{len(unlearned):,} of {len(items):,} candidates are of level {levels}, which was never or hardly ever "
            "shown: their score is borrowed from the nearest levels that were"
        )
    category_impressions = explanation.rates.category_impressions.sum(axis=1)
    unshown = [item for item, shown in zip(items, category_impressions.tolist(), strict=True) if not shown]
    if unshown:
        names = sorted({"none" if item.category is None else repr(item.category) for item in unshown})
        more = ", …" if len(names) > _CATEGORIES_NAMED else ""
        notes.append(
            f"{len(unshown):,} of {len(items):,} candidates are of a category that was never shown: "
            f"{', '.join(names[:_CATEGORIES_NAMED])}{more}"
        )
    return notes


def _counts(counts: Sequence[int]) -> dict[str, int]:
    return {str(level): count for level, count in zip(LEVELS, counts, strict=True)}
