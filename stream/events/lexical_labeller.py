"""Relevance levels for logs without them: the share of the query's words that the title contains."""

import re
from functools import lru_cache
from typing import Final

from prectr.stream.events.contract import ResultPage
from prectr.stream.events.query_key import normalise_query

_WORD: Final = re.compile(r"\w+")
_CACHE_SIZE: Final = 1 << 17


class LexicalLabeller:
    """Fills in missing levels from the words that query and title have in common.

    With f the share of the query's distinct words that are words of the title:

        level 4   f = 1
        level 3   1/2 ≤ f < 1
        level 2   0 < f < 1/2
        level 1   f = 0; also where there is no title, or the query has no words

    Words are runs of letters, digits and underscores of the normalised text. The thresholds are ours. The
    level depends on query and title alone, so caching does not change results.
    """

    def __call__(self, query: str, page: ResultPage) -> None:
        """Fill in, in place, the level of each item of the page that has none; `query` is normalised."""
        for item in page.items:
            if item.relevance is None:
                item.relevance = lexical_level(query, item.title)


@lru_cache(maxsize=_CACHE_SIZE)
def lexical_level(query: str, title: str | None) -> int:
    """Return the level, 1 to 4, of a title for a normalised query."""
    query_words = _words(query)
    if not query_words or not title:
        return 1
    shared_words = len(query_words & _words(normalise_query(title)))
    if shared_words == len(query_words):
        return 4
    if 2 * shared_words >= len(query_words):
        return 3
    return 2 if shared_words else 1


@lru_cache(maxsize=_CACHE_SIZE)
def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text))
