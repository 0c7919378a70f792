"""Examples with custom features: a number that decides the clicks, and others that say nothing."""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from prectr.stream.events.contract import Item, ResultPage
from prectr.stream.records import Example, decode_page
from tests.kit.models.examples import random_examples

Features = Mapping[str, float | str]


def with_features(
    example: Example,
    items: Sequence[Features | None],
    *,
    page: Features | None = None,
    context: Mapping[str, str] | None = None,
) -> Example:
    """The same page with custom features; one mapping an item."""
    shown = decode_page(example.page)
    pairs = zip(shown.items, items, strict=True)
    changed: ResultPage = msgspec.structs.replace(
        shown,
        items=[msgspec.structs.replace(item, features=dict(own) if own is not None else None) for item, own in pairs],
        features=None if page is None else dict(page),
        context=None if context is None else dict(context),
    )
    return msgspec.structs.replace(example, page=msgspec.Raw(msgspec.msgpack.encode(changed)))


def items_of(example: Example) -> list[Item]:
    """The items of an example's page."""
    return decode_page(example.page).items


def planted_examples(pages: int, seed: int = 0) -> list[Example]:
    """Pages whose clicks are decided by the item feature `quality`, which is heavy-tailed and sometimes missing.

    `noise` and `colour` of the item, `hour` of the page and `device` of the context decide nothing.
    """
    random = np.random.default_rng(seed + 1000)
    return [_planted(example, random) for example in random_examples(pages, seed=seed)]


def _planted(example: Example, random: np.random.Generator) -> Example:
    items: list[Features] = []
    labels = []
    for _ in items_of(example):
        score = float(random.normal())
        features: dict[str, float | str] = {"colour": f"c{random.integers(5)}", "noise": float(random.normal())}
        if random.random() < 0.2:
            rate = 0.5
        else:
            features["quality"] = 1e300 if random.random() < 0.01 else 1000.0 * math.exp(2.0 * score)
            rate = 0.9 if score > 0.5 else 0.05
        items.append(features)
        labels.append(int(random.random() < rate))
    return with_features(
        msgspec.structs.replace(example, labels=bytes(labels)),
        items,
        page={"hour": float(random.integers(24))},
        context={"device": f"d{random.integers(3)}"},
    )


def without_features(example: Example) -> Example:
    """The same page without custom features."""
    return with_features(example, [None] * len(example.labels))
