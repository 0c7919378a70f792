"""Made-up queries over a catalogue's own fields, with levels by rule: a warm-up for an encoder, before any grade.

A shop knows category and brand of its items without anybody's judgement. A query made up of an item's category (by
name, or by words of another title of that category), its brand and words of its title is answered by other items more
or less, and the fields say how much; crudely, since a title leaves things out and has synonyms. Reconstruction: it
stands for the papers' teacher, which no language model here can be for made-up words.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prectr.model.text.encoder.tokens import Pair
from prectr.stream.events.query_key import normalise_query
from prectr.stream.simulator import Catalogue

BRAND_ASKED: Final = 0.6
NAMED: Final = 0.5
"""Chance that the category is asked for by its name; else by words of another item's title."""
WORDS_ASKED: Final = (0.25, 0.40, 0.35)
"""Chances that 0, 1 or 2 words of the item's title are asked for besides."""
KIN: Final = (0.10, 0.50, 0.15, 0.25)
"""Chances that the title is the item's own, of its category, of a related one, or of any item."""
BEST_OF: Final = 4
"""Half of the titles of its category are the best of so many: search does not show just any."""
IDENTITY: Final = 64
"""Of a word's vector: numbers drawn for the word itself, beside those of the categories that it stands in."""
RELATED: Final = 2.0
"""A category is related to another that stands among its queries' candidates this many times as often as most do."""
SURE: Final = 0.8
"""Weight of the level that the rule says; the rest is spread over its neighbours, as rules err by one."""


def made_up_pairs(catalogue: Catalogue, count: int, seed: int) -> tuple[list[Pair], NDArray[np.float32]]:
    """Pairs of made-up queries and titles, and the logarithm of their level distributions, float32[n, 4]."""
    rng = np.random.default_rng([seed, 25])
    by_category, related = _places(catalogue.categories), related_categories(catalogue)
    near = {
        name: np.concatenate([by_category[other] for other in sorted(others)] or [by_category[name]])
        for name, others in related.items()
    }
    pairs, levels = [], np.zeros(count, dtype=np.int64)
    everything = np.arange(len(catalogue.titles))
    for number in range(count):
        item = int(rng.integers(len(everything)))
        category, brand = catalogue.categories[item], catalogue.brands[item]
        branded = rng.random() < BRAND_ASKED
        asked = _plain_words(catalogue.titles[item], brand)
        rng.shuffle(asked)
        asked = asked[: rng.choice(3, p=WORDS_ASKED)]
        noun = [category]
        if rng.random() >= NAMED:
            other = int(rng.choice(by_category[category]))
            noun = _plain_words(catalogue.titles[other], catalogue.brands[other]) or noun
        words = [*asked, *noun]
        if branded:
            words.insert(int(rng.integers(2)) * len(words), brand)
        wishes = _Wishes(category, brand if branded else None, tuple(asked))
        kin = (np.array([item]), by_category[category], near[category], everything)[rng.choice(4, p=KIN)]
        tries = rng.choice(kin, BEST_OF if kin is by_category[category] and rng.random() < 0.5 else 1)
        graded = [_level(wishes, catalogue, answer, related) for answer in tries.tolist()]
        best = int(np.argmax(graded))
        pairs.append((normalise_query(" ".join(words)), catalogue.titles[tries[best]]))
        levels[number] = graded[best]
    return pairs, np.log(spread(levels)).astype(np.float32)


def spread(levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distributions, float64[n, 4], with most of the weight at the level and the rest beside it."""
    distance = np.abs(np.arange(1, 5) - levels[:, None])
    beside = np.where(distance == 1, 1.0, 0.02) * (distance > 0)
    beside *= (1 - SURE) / beside.sum(axis=1, keepdims=True)
    return np.where(distance == 0, SURE, beside)


def related_categories(catalogue: Catalogue) -> dict[str, set[str]]:
    """Which other categories a shop's search finds for queries of each: known without any grade.

    The category of a query is the one that most of its candidates have.
    """
    names, category = np.unique(np.asarray(catalogue.categories), return_inverse=True)
    found = np.zeros((len(names), len(names)))
    for candidates in catalogue.candidates:
        counts = np.bincount(category[candidates[candidates >= 0]], minlength=len(names))
        found[counts.argmax()] += counts
    np.fill_diagonal(found, 0.0)
    usual = np.median(found, axis=1, keepdims=True)
    near = (found > RELATED * usual) & (found > 0)
    return {
        name: {names[other] for other in np.flatnonzero(row)} for name, row in zip(names.tolist(), near, strict=True)
    }


class _Wishes(NamedTuple):
    """What a made-up query asks for."""

    category: str
    brand: str | None
    words: tuple[str, ...]


def _level(wishes: _Wishes, catalogue: Catalogue, item: int, related: Mapping[str, set[str]]) -> int:
    """The rule: as the world grades, where fields and words are all that is known."""
    if catalogue.categories[item] != wishes.category:
        return 2 if catalogue.categories[item] in related[wishes.category] else 1
    said = catalogue.titles[item].split()
    fulfilled = (catalogue.brands[item] == wishes.brand) + sum(word in said for word in wishes.words)
    asked = (wishes.brand is not None) + len(wishes.words)
    if fulfilled == asked:
        return 4
    return 3 if 2 * fulfilled >= asked else 2


def text_vectors(catalogue: Catalogue, texts: Sequence[str], seed: int) -> NDArray[np.float32]:
    """A vector of each text, float32[n, categories + 64], of length 1: the mean of its words'.

    A word's: in which categories' titles it stands, less than by chance or more, and numbers of its own; so words for
    the same thing start alike, as a language model would have them.
    """
    names, category = np.unique(np.asarray(catalogue.categories), return_inverse=True)
    counts: dict[str, NDArray[np.float64]] = {}
    for title, place in zip(catalogue.titles, category.tolist(), strict=True):
        for word in title.split():
            counts.setdefault(word, np.zeros(len(names)))[place] += 1.0
    rng = np.random.default_rng([seed, 26])
    words = dict.fromkeys(word for text in texts for word in text.split())
    of_word = {word: _word_vector(counts.get(word), len(names), rng) for word in words}
    nothing = np.zeros(len(names) + IDENTITY)
    vectors = np.array([np.mean([of_word[word] for word in text.split()] or [nothing], axis=0) for text in texts])
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _word_vector(counts: NDArray[np.float64] | None, categories: int, rng: np.random.Generator) -> NDArray[np.float64]:
    own = rng.standard_normal(IDENTITY) / np.sqrt(IDENTITY)
    if counts is None:
        return np.concatenate([np.zeros(categories), own])
    smooth = (counts + 0.5) / (counts.sum() + 0.5 * categories)
    profile = smooth - 1.0 / categories
    return np.concatenate([profile, own])


def _plain_words(title: str, brand: str) -> list[str]:
    """A title's words but for the brand and model numbers."""
    return [word for word in title.split() if word != brand and not any(letter.isdigit() for letter in word)]


def _places(values: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    found: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        found.setdefault(value, []).append(place)
    return {value: np.array(places) for value, places in found.items()}
