"""Unlabelled pairs of the Chorus catalogue's 19,406 products with synthetic queries, for a teacher to label.

A query is built from a title: one or two words, a run of words, the brand with a word, with a number or alone; or it is
a word of the sentence encoder's vocabulary close to the titles, since users and makers name things differently. Some
queries are misspelt, joined, split, reversed or switched between singular and plural. Each is paired with titles that a
search would find (by words, and by vectors), with a near miss (same brand, or a shared word on another thing) and with
random titles.
"""

import gzip
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.relevance.bm25 import Bm25
from prectr.model.text.encoder.tokens import Pair

PRODUCTS: Final = Path(__file__).parents[3] / "shared" / "data" / "chorus" / "products.jsonl.gz"

NEAR_WORDS: Final = 3_000
"""Number of words of the sentence encoder's vocabulary that become queries: those nearest to any title."""

_WORD: Final = re.compile(r"[a-z0-9][a-z0-9&.'+-]*")
_DIGIT: Final = re.compile(r"\d")
_TITLES_PER_QUERY: Final = 6
_NEAREST_TITLES: Final = 300
_BLOCK: Final = 256

_FORM_PROBABILITIES: Final = (0.25, 0.2, 0.15, 0.15, 0.1, 0.1, 0.05)
"""Probabilities of: a word, two in a row, brand and word, any two, three in a row, brand and number, brand."""


class Product(msgspec.Struct, frozen=True):
    """A product of the catalogue."""

    title: str
    brand: str = ""
    desc: str | None = None


@dataclass(frozen=True, slots=True)
class TextVectors:
    """Titles and queries with their vectors, float32[n, width]."""

    titles: list[str]
    brands: list[str]
    vectors: NDArray[np.float32]


def read_products(path: Path = PRODUCTS) -> list[Product]:
    """Read the products, each title once."""
    decode = msgspec.json.Decoder(Product).decode
    with gzip.open(path, "rb") as lines:
        found = {product.title: product for product in map(decode, lines)}
    return list(found.values())


def tokenize(text: str) -> list[str]:
    """Split a text into lower-case words, numbers and model numbers included."""
    return [word.strip(".-'") for word in _WORD.findall(text.lower()) if word.strip(".-'")]


def synthetic_queries(
    products: Sequence[Product], count: int, rng: np.random.Generator, near_words: Sequence[str]
) -> list[str]:
    """About `count` distinct queries drawn from titles, in addition to `near_words`."""
    document_frequency = Counter(word for product in products for word in set(tokenize(product.title)))
    queries = dict.fromkeys(near_words)
    for _ in range(50 * count):
        if len(queries) >= count + len(near_words):
            break
        product = products[int(rng.integers(len(products)))]
        query = _perturb_spelling(_draw_query(product, document_frequency, rng), rng)
        if query:
            queries.setdefault(query)
    return list(queries)


def _draw_query(product: Product, document_frequency: Counter[str], rng: np.random.Generator) -> str:
    brand = " ".join(tokenize(product.brand))
    words = tokenize(product.title)
    if brand and " ".join(words).startswith(brand):
        words = words[len(brand.split()) :]
    plain = [word for word in words if not _DIGIT.search(word) and len(word) > 2 and document_frequency[word] >= 3]
    if not plain:
        return brand
    numbers = [word for word in words if _DIGIT.search(word)] or plain[-1:]
    at = int(rng.integers(len(plain)))
    two = sorted(rng.choice(len(plain), size=min(len(plain), 2), replace=False).tolist())
    forms = (
        plain[at],
        " ".join(plain[at : at + 2]),
        f"{brand} {plain[at]}".strip(),
        " ".join(plain[index] for index in two),
        " ".join(plain[at : at + 3]),
        f"{brand} {numbers[int(rng.integers(len(numbers)))]}".strip(),
        brand,
    )
    return forms[int(rng.choice(len(forms), p=_FORM_PROBABILITIES))]


def _perturb_spelling(query: str, rng: np.random.Generator) -> str:
    """Perturb a query as users do when typing; most queries stay unchanged."""
    words = query.split()
    if not words:
        return ""
    at = int(rng.integers(len(words)))
    word, how = words[at], rng.random()
    if how < 0.08:
        words[at] = word[:-1] if word.endswith("s") and len(word) > 3 else word + "s"
    elif how < 0.12 and len(words) > 1:
        words[max(at - 1, 0) : max(at - 1, 0) + 2] = ["".join(words[max(at - 1, 0) : max(at - 1, 0) + 2])]
    elif how < 0.17 and len(word) > 4:
        swap_at = int(rng.integers(1, len(word) - 1))
        words[at] = word[:swap_at] + word[swap_at + 1] + word[swap_at] + word[swap_at + 2 :]
    elif how < 0.22 and "-" in word:
        words[at] = word.replace("-", " ")
    elif how < 0.25 and len(words) > 1:
        words = words[::-1]
    return " ".join(words)


def pair_with_titles(
    queries: Sequence[str], query_vectors: NDArray[np.float32], texts: TextVectors, rng: np.random.Generator
) -> list[Pair]:
    """Pair each query with six titles: two by words, one near and one farther by vectors, a near miss, and random."""
    search = Bm25([tokenize(title) for title in texts.titles])
    brands: dict[str, list[int]] = {}
    for title, brand in enumerate(texts.brands):
        brands.setdefault(brand, []).append(title)
    pairs: dict[Pair, None] = {}
    for number, query in enumerate(queries):
        if number % _BLOCK == 0:
            similarity = query_vectors[number : number + _BLOCK] @ texts.vectors.T
        close = similarity[number % _BLOCK]
        words = search.scores(tokenize(query))
        found = np.flatnonzero(words > 0)
        top = found[np.argsort(-words[found], kind="stable")][:40]
        near = np.argsort(-close, kind="stable")[:_NEAREST_TITLES]
        chosen = rng.permutation(top)[:2].tolist()
        chosen += [int(near[int(rng.integers(min(20, len(near))))]), int(near[int(rng.integers(len(near)))])]
        first = chosen[0]
        miss = _near_miss(first, found, brands[texts.brands[first]], rng)
        chosen += [miss, *rng.integers(len(texts.titles), size=_TITLES_PER_QUERY).tolist()]
        for title in list(dict.fromkeys(chosen))[:_TITLES_PER_QUERY]:
            pairs.setdefault((query, texts.titles[title]))
    return list(pairs)


def _near_miss(
    found_first: int, with_a_word: NDArray[np.int64], same_brand: Sequence[int], rng: np.random.Generator
) -> int:
    """Another item of the same brand, or any with a word of the query."""
    if len(with_a_word) > 0 and rng.random() < 0.5:
        return int(rng.choice(with_a_word))
    return int(rng.choice(np.asarray(same_brand))) if same_brand else found_first


def vocabulary_words(tokens: Sequence[str]) -> list[str]:
    """Whole words of at least three letters in a WordPiece vocabulary."""
    return [token for token in tokens if token.isascii() and token.isalpha() and len(token) > 2]


def nearest_words(
    words: Sequence[str], vectors: NDArray[np.float32], titles: NDArray[np.float32], count: int = NEAR_WORDS
) -> list[str]:
    """The `count` words nearest to any title; vectors: float32[words, width], titles: float32[n, width]."""
    best = np.concatenate(
        [(block @ titles.T).max(axis=1) for block in np.array_split(vectors, max(len(vectors) // 500, 1))]
    )
    return [words[index] for index in np.argsort(-best, kind="stable")[:count].tolist()]


Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Returns unit vectors of texts, float32[n, width]."""


def distillation_pairs(
    products: Sequence[Product], embed: Embed, vocabulary: Sequence[str], *, queries: int, seed: int
) -> list[Pair]:
    """Pairs of synthetic queries and titles, about six per query; deterministic for a seed and an encoder."""
    rng = np.random.default_rng([seed, 7])
    titles = [product.title for product in products]
    texts = TextVectors(titles, [product.brand for product in products], embed(titles))
    words = vocabulary_words(vocabulary)
    near = nearest_words(words, embed(words), texts.vectors, min(NEAR_WORDS, queries // 4))
    made = synthetic_queries(products, queries - len(near), rng, near)
    pairs = pair_with_titles(made, embed(made), texts, rng)
    return [pairs[index] for index in rng.permutation(len(pairs))]
