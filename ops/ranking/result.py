"""What `prectr rank` makes: the candidates in order, with what each score is made of and what is known behind it."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from prectr.model.features.batch import NO_PRICE, Floats, price_band
from prectr.model.quality.explanation import Explanation
from prectr.state.aggregates import LEVELS, LevelCounts
from prectr.state.errors import PrectrError
from prectr.stream.events.contract import Item

RelevanceSource = Literal["inferred", "given", "labelled"]
"""Where a candidate's level comes from: from its text by the model, from the file, or from the stages' labeller."""

ByLevel = dict[str, float]
"""A number for each relevance level, "1" to "4"."""


class Preference(msgspec.Struct, frozen=True, kw_only=True):
    """Which relevance levels a user, or all users of a query, click: as the model reads it, and what is behind it.

    seen: whether anything is known. impressions, clicks: by level, of the pages closed by then. rates: click rates by
    level, smoothed towards `expected`, those of the candidates' categories (both means over the candidates).
    preferred: the level with the highest smoothed rate; null where nothing has been shown. past_clicks: how many single
    clicks are known besides: of a user all, of a query the last.
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
    """A candidate in its place.

    click_probability: at the ranking's position. log_odds: the same. level: the likeliest; levels: P(level).
    click_given_level: P(click | level), of a model that mixes over levels: click_probability is the sum of
    levels × click_given_level. incentive: τ at `level`, and incentives at every one: what is added to the log-odds of
    a click for what this user and all users of the query have clicked. user_rate, query_rate, category_rate: smoothed
    click rates at `level`.
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

    query: normalised. as_of: the time at which the question is asked (ms); counted_to: effective close up to which
    pages of the query have been counted, null where all have. candidates: how many there were; ranked: the best of
    them. notes: what is worth knowing, in words.
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
    """The candidates by falling click probability, equal ones as they came. sources: of each candidate's level.

    PrectrError: a score is not a number.
    """
    if not np.isfinite(explanation.log_odds).all():
        invalid = items[int(np.flatnonzero(~np.isfinite(explanation.log_odds))[0])]
        raise PrectrError(
            f"the score of candidate {invalid.item_id!r} is not a number: the model is damaged; train it anew"
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
        level_probabilities=_by_level(explanation.levels[index]),
        click_given_level=None
        if explanation.click_given_level is None
        else _by_level(explanation.click_given_level[index]),
        incentive=None if explanation.incentive is None else float(explanation.incentive[index, likeliest]),
        incentives=None if explanation.incentive is None else _by_level(explanation.incentive[index]),
        user_rate=float(rates.user[index, likeliest]),
        query_rate=float(rates.query[index, likeliest]),
        category_rate=float(rates.category[index, likeliest]),
    )


def preference(
    name: str, *, known: bool, stats: LevelCounts, rates: Floats, prior_rates: Floats, past_clicks: int
) -> Preference:
    """What is known of a user or a query. rates, expected: float64[N, 4], smoothed, of each candidate."""
    smoothed = rates.mean(axis=0)
    return Preference(
        name=name,
        known=known,
        impressions=_counts(stats[:4]),
        clicks=_counts(stats[4:]),
        rates=_by_level(smoothed),
        prior_rates=_by_level(prior_rates.mean(axis=0)),
        preferred=int(smoothed.argmax()) + 1 if any(stats[:4]) else None,
        past_clicks=past_clicks,
    )


_NO_TITLE: Final = "no title, or nothing in it: their level is what the query alone says"
_INVALID_PRICE: Final = "a price that means nothing (not above 0, or no number): scored as without one"


def candidate_notes(items: Sequence[Item], sources: Sequence[RelevanceSource]) -> list[str]:
    """What is worth knowing of the candidates, in words."""
    counts: Mapping[str, int] = {
        _INVALID_PRICE: sum(item.price is not None and price_band(item.price) == NO_PRICE for item in items),
        _NO_TITLE: sum(not (item.title or "").strip() for item in items),
    }
    notes = [f"{count:,} of {len(items):,} candidates have {what}" for what, count in counts.items() if count]
    labelled = sources.count("labelled")
    if labelled:
        notes.append(
            f"{labelled:,} of {len(items):,} candidates carry no relevance, and this model is told of levels instead "
            "of inferring them: the stages' labeller has filled them in from the words of query and title. For "
            'P(level) from the text train prectr or prectr-v2, or set level_source = "inferred"'
        )
    ignored = sum(item.relevance is not None for item in items)
    if ignored and "inferred" in sources:
        notes.append(f"{ignored:,} candidates carry a relevance: not looked at, this model infers it from the text")
    return notes


def _by_level(numbers: Floats) -> ByLevel:
    return {str(level): float(number) for level, number in zip(LEVELS, numbers, strict=True)}


def _counts(counts: Sequence[int]) -> dict[str, int]:
    return {str(level): count for level, count in zip(LEVELS, counts, strict=True)}
