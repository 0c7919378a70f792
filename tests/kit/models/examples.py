"""Seeded training examples without a pipeline: random pages whose clicks depend on position and level."""

from collections.abc import Sequence

import msgspec
import numpy as np

from prectr.model.config import TrainerConfig
from prectr.state.aggregates import DecayedSums, LevelCounts
from prectr.stream.events.contract import Item, ResultPage
from prectr.stream.records import Example, QueryClick, UserClick

START = 1_700_000_000_000
WINDOW = 120_000
_encode = msgspec.msgpack.Encoder().encode


def small_config(**settings: object) -> TrainerConfig:
    """Small tables, so that a trainer is made in no time."""
    values: dict[str, object] = {
        "model": "wide-deep+",
        "batch_pages": 4,
        "embedding_rows": 4096,
        "wide_rows": 4096,
        "prior_rates_size": 64,
        "device": "cpu",
        "pair_cache_size": 1024,
        "exposed_pairs_bits": 4096,
        "exposure_sketch_size": 4096,
        **settings,
    }
    if str(settings.get("model", "")).startswith("prectr"):
        from tests.kit.models.encoder import tiny_encoder  # transformers takes seconds to import

        values.setdefault("encoder", str(tiny_encoder()))
    return msgspec.convert(values, TrainerConfig)


def random_examples(pages: int, seed: int = 0, *, gap_seconds: float = 20.0) -> list[Example]:
    """`pages` examples in the one order; about one item in six is clicked."""
    random = np.random.default_rng(seed)
    ts = START + np.cumsum(random.exponential(gap_seconds * 1000, pages)).astype(np.int64)
    return [_example(number, int(time_ms), random) for number, time_ms in enumerate(ts)]


def _example(number: int, ts: int, random: np.random.Generator) -> Example:
    query = f"query {random.integers(8)}"
    items = [_item(position, random) for position in range(1, int(random.integers(2, 9)))]
    levels = bytes(item.relevance or 0 for item in items)
    rates = [0.1 * level / place**0.5 for place, level in enumerate(levels, 1)]
    history = [_past_click(ts, random) for _ in range(int(random.integers(0, 6)))]
    page = ResultPage(f"r{number:05}", f"user {random.integers(12)}", query, ts, items)
    labels = bytes(int(random.random() < rate) for rate in rates)
    user_stats, query_stats = _counts(random), _counts(random)
    return Example(
        closes_at=ts + WINDOW,
        request_id=page.request_id,
        user_id=page.user_id,
        ts=ts,
        query=query,
        labels=labels,
        levels=levels,
        user_activity=len(history),
        user_stats=user_stats,
        query_stats=query_stats,
        query_decayed=_decayed(query_stats, number),
        history=msgspec.Raw(_encode(history)),
        query_clicks=msgspec.Raw(_encode([QueryClick(ts, "item 1", 4, None, None, None)])),
        page=msgspec.Raw(_encode(page)),
    )


def _item(position: int, random: np.random.Generator) -> Item:
    number = int(random.integers(40))
    return Item(
        item_id=f"item {number}",
        title=f"title {number}",
        relevance=int(random.integers(1, 5)),
        price=float(number) * 3.5 if number % 5 else None,
        category=f"category {number % 4}" if number % 7 else None,
        brand=f"brand {number % 3}" if number % 6 else None,
        position=position,
    )


def _past_click(ts: int, random: np.random.Generator) -> UserClick:
    number = int(random.integers(40))
    return UserClick(ts - 1000 * number, "r", f"item {number}", "query 1", None, 3, f"category {number % 4}", None, 5.0)


def _counts(random: np.random.Generator) -> tuple[int, int, int, int, int, int, int, int]:
    impressions = random.integers(0, 30, 4)
    clicks = random.binomial(impressions, 0.2)
    return tuple(int(count) for count in (*impressions, *clicks))  # type: ignore[return-value]


def _decayed(counts: LevelCounts, number: int) -> DecayedSums:
    """What is left of the counts at three half-lives: less at a shorter one, and more of the clicks."""
    random = np.random.default_rng([number, 1])  # apart from the draws of the page
    left = np.sort(random.uniform(0.0, 0.5, (3, 4)), axis=0)
    shares = np.concatenate([left, left * random.uniform(1.0, 2.0, (3, 4))], axis=1)
    return msgspec.convert((shares * counts).tolist(), DecayedSums)


def with_labels(example: Example, labels: Sequence[int]) -> Example:
    """The same page with other clicks."""
    return msgspec.structs.replace(example, labels=bytes(labels))
