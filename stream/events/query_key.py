"""Query keys: the normal form by which queries are compared."""

import unicodedata
from functools import lru_cache
from typing import Final

_CACHE_SIZE: Final = 1 << 16


@lru_cache(maxsize=_CACHE_SIZE)
def normalise_query(query: str) -> str:
    """Return the key of a query: NFKC, case-folded, NFKC again, white space collapsed and stripped.

    NFKC is applied again because case folding can undo it, so that the key of a key is the key itself.
    """
    folded = unicodedata.normalize("NFKC", query).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
