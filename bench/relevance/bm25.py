"""BM25 (Robertson and Zaragoza 2009), the lexical baseline for relevance."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_K1: Final = 1.2
_B: Final = 0.75


class Bm25:
    """Inverted index of documents, each a list of words."""

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        """Build the index."""
        lengths = np.array([len(words) for words in documents], dtype=np.float64)
        postings: dict[str, list[tuple[int, int]]] = {}
        for document, words in enumerate(documents):
            for word, times in Counter(words).items():
                postings.setdefault(word, []).append((document, times))
        self._documents = len(documents)
        self._norm = _K1 * (1 - _B + _B * lengths / max(lengths.mean(), 1e-9))
        self._postings = {
            word: (np.array([place for place, _ in found]), np.array([times for _, times in found], dtype=np.float64))
            for word, found in postings.items()
        }

    def scores(self, query: Sequence[str]) -> NDArray[np.float64]:
        """Score each document for the words of a query, float64[documents]; 0 if no word matches."""
        total = np.zeros(self._documents)
        for word in query:
            if word not in self._postings:
                continue
            documents, times = self._postings[word]
            idf = np.log1p((self._documents - len(documents) + 0.5) / (len(documents) + 0.5))
            total[documents] += idf * times * (_K1 + 1) / (times + self._norm[documents])
        return total
