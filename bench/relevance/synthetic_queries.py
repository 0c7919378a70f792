"""Synthetic queries over a catalogue's fields, with levels by a rule, to warm up an encoder before it sees grades.

A shop knows category and brand of its items without human grades. A query combines an item's category (by name, or by
words of another title of that category), its brand and words of its title; the fields of any other item then determine
how relevant it is, approximately, since titles are incomplete and use synonyms. Reconstruction: this replaces the
papers' teacher, since no language model knows the artificial words of this catalogue.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prectr.model.text.encoder.tokens import Pair
from prectr.stream.events.query_key import normalise_query
from prectr.stream.simulator import Catalogue

BRAND_PROBABILITY: Final = 0.6
CATEGORY_NAME_PROBABILITY: Final = 0.5
"""Probability that the category is given by its name; otherwise by words of another item's title."""
WORD_COUNT_PROBABILITIES: Final = (0.25, 0.40, 0.35)
"""Probabilities of 0, 1 or 2 additional words from the item's title."""
TITLE_SOURCE_PROBABILITIES: Final = (0.10, 0.50, 0.15, 0.25)
"""Probabilities that the paired title is of the item itself, its category, a related category, or any item."""
BEST_OF_CANDIDATES: Final = 4
"""Half of the titles of its category are the best of this many samples, as a search would rank them."""
IDENTITY_DIMENSIONS: Final = 64
"""Random dimensions of a word's vector that identify the word, in addition to its category profile."""
RELATED_RATIO: Final = 2.0
"""A category is related if it occurs among the candidates this many times as often as the median category."""
LABEL_CONFIDENCE: Final = 0.8
"""Probability of the rule's level; the rest goes to its neighbours, since the rule errs by one level."""


def synthetic_pairs(catalogue: Catalogue, count: int, seed: int) -> tuple[list[Pair], NDArray[np.float32]]:
    """Pairs of synthetic queries and titles, and log-probabilities of their levels, float32[n, 4]."""
    rng = np.random.default_rng([seed, 25])
    by_category, related = _indices_by_value(catalogue.categories), related_categories(catalogue)
    near = {
        name: np.concatenate([by_category[other] for other in sorted(others)] or [by_category[name]])
        for name, others in related.items()
    }
    pairs, levels = [], np.zeros(count, dtype=np.int64)
    everything = np.arange(len(catalogue.titles))
    for number in range(count):
        item = int(rng.integers(len(everything)))
        category, brand = catalogue.categories[item], catalogue.brands[item]
        names_brand = rng.random() < BRAND_PROBABILITY
        query_words = _plain_words(catalogue.titles[item], brand)
        rng.shuffle(query_words)
        query_words = query_words[: rng.choice(3, p=WORD_COUNT_PROBABILITIES)]
        noun = [category]
        if rng.random() >= CATEGORY_NAME_PROBABILITY:
            other = int(rng.choice(by_category[category]))
            noun = _plain_words(catalogue.titles[other], catalogue.brands[other]) or noun
        words = [*query_words, *noun]
        if names_brand:
            words.insert(int(rng.integers(2)) * len(words), brand)
        intent = _Intent(category, brand if names_brand else None, tuple(query_words))
        title_pool = (np.array([item]), by_category[category], near[category], everything)[
            rng.choice(4, p=TITLE_SOURCE_PROBABILITIES)
        ]
        sampled = rng.choice(
            title_pool, BEST_OF_CANDIDATES if title_pool is by_category[category] and rng.random() < 0.5 else 1
        )
        graded = [_rule_level(intent, catalogue, answer, related) for answer in sampled.tolist()]
        best = int(np.argmax(graded))
        pairs.append((normalise_query(" ".join(words)), catalogue.titles[sampled[best]]))
        levels[number] = graded[best]
    return pairs, np.log(smooth_labels(levels)).astype(np.float32)


def smooth_labels(levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Level distributions, float64[n, 4], with most of the weight at the given level."""
    distance = np.abs(np.arange(1, 5) - levels[:, None])
    neighbours = np.where(distance == 1, 1.0, 0.02) * (distance > 0)
    neighbours *= (1 - LABEL_CONFIDENCE) / neighbours.sum(axis=1, keepdims=True)
    return np.where(distance == 0, LABEL_CONFIDENCE, neighbours)


def related_categories(catalogue: Catalogue) -> dict[str, set[str]]:
    """Other categories among the search candidates of each category's queries; needs no grades.

    The category of a query is the most frequent one among its candidates.
    """
    names, category = np.unique(np.asarray(catalogue.categories), return_inverse=True)
    found = np.zeros((len(names), len(names)))
    for candidates in catalogue.candidates:
        counts = np.bincount(category[candidates[candidates >= 0]], minlength=len(names))
        found[counts.argmax()] += counts
    np.fill_diagonal(found, 0.0)
    usual = np.median(found, axis=1, keepdims=True)
    near = (found > RELATED_RATIO * usual) & (found > 0)
    return {
        name: {names[other] for other in np.flatnonzero(row)} for name, row in zip(names.tolist(), near, strict=True)
    }


class _Intent(NamedTuple):
    """The intent behind a synthetic query."""

    category: str
    brand: str | None
    words: tuple[str, ...]


def _rule_level(intent: _Intent, catalogue: Catalogue, item: int, related: Mapping[str, set[str]]) -> int:
    """Level of an item for an intent: approximates the world's grading from fields and words alone."""
    if catalogue.categories[item] != intent.category:
        return 2 if catalogue.categories[item] in related[intent.category] else 1
    title_words = catalogue.titles[item].split()
    matched = (catalogue.brands[item] == intent.brand) + sum(word in title_words for word in intent.words)
    requested = (intent.brand is not None) + len(intent.words)
    if matched == requested:
        return 4
    return 3 if 2 * matched >= requested else 2


def text_vectors(catalogue: Catalogue, texts: Sequence[str], seed: int) -> NDArray[np.float32]:
    """Unit vector of each text, float32[n, categories + 64]: the mean of its words' vectors.

    A word's vector is its profile over the categories whose titles contain it, relative to chance, followed by random
    dimensions of its own; so synonyms are similar, as in a language model.
    """
    names, category = np.unique(np.asarray(catalogue.categories), return_inverse=True)
    counts: dict[str, NDArray[np.float64]] = {}
    for title, category_index in zip(catalogue.titles, category.tolist(), strict=True):
        for word in title.split():
            counts.setdefault(word, np.zeros(len(names)))[category_index] += 1.0
    rng = np.random.default_rng([seed, 26])
    words = dict.fromkeys(word for text in texts for word in text.split())
    word_vectors = {word: _word_vector(counts.get(word), len(names), rng) for word in words}
    zero = np.zeros(len(names) + IDENTITY_DIMENSIONS)
    vectors = np.array([np.mean([word_vectors[word] for word in text.split()] or [zero], axis=0) for text in texts])
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _word_vector(counts: NDArray[np.float64] | None, categories: int, rng: np.random.Generator) -> NDArray[np.float64]:
    identity = rng.standard_normal(IDENTITY_DIMENSIONS) / np.sqrt(IDENTITY_DIMENSIONS)
    if counts is None:
        return np.concatenate([np.zeros(categories), identity])
    smooth = (counts + 0.5) / (counts.sum() + 0.5 * categories)
    profile = smooth - 1.0 / categories
    return np.concatenate([profile, identity])


def _plain_words(title: str, brand: str) -> list[str]:
    """Words of a title without brand and model numbers."""
    return [word for word in title.split() if word != brand and not any(letter.isdigit() for letter in word)]


def _indices_by_value(values: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    found: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        found.setdefault(value, []).append(index)
    return {value: np.array(indices) for value, indices in found.items()}
