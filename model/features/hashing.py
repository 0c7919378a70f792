"""Stable 64-bit hashes of ids, and rows of bounded tables derived from them.

A hash depends on the text alone: not on process, platform or earlier calls.
"""

import hashlib
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

MISSING: Final = 0x9E3779B97F4A7C15
"""The hash of a field without a value."""

_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2: Final = np.uint64(0x94D049BB133111EB)
_SHIFT_1: Final = np.uint64(30)
_SHIFT_2: Final = np.uint64(27)
_SHIFT_3: Final = np.uint64(31)


def hash_text(text: str | None) -> int:
    """The 64-bit BLAKE2b of a text's UTF-8; `MISSING` for None."""
    if text is None:
        return MISSING
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class HashCache:
    """`hash_text` with a cache of at most `capacity` hashes.

    A full cache is cleared, which changes no result: a hash is a function of its text.
    """

    def __init__(self, capacity: int = 1 << 17) -> None:
        self._capacity = capacity
        self._hashes: dict[str | None, int] = {}

    def __call__(self, text: str | None) -> int:
        """The hash of `text`."""
        cached = self._hashes.get(text)
        if cached is None:
            if len(self._hashes) >= self._capacity:
                self._hashes.clear()
            cached = self._hashes[text] = hash_text(text)
        return cached


def mix(hashes: U64) -> U64:
    """Mix the bits of 64-bit values, any shape: a bijection (finaliser of SplitMix64, Steele et al. 2014)."""
    mixed = hashes + _GAMMA
    mixed ^= mixed >> _SHIFT_1
    mixed *= _MULTIPLY_1
    mixed ^= mixed >> _SHIFT_2
    mixed *= _MULTIPLY_2
    mixed ^= mixed >> _SHIFT_3
    return mixed


def cross(left: U64, right: U64) -> U64:
    """Combine pairs of hashes (shapes broadcast); (a, b) and (b, a) differ."""
    return mix(mix(left) + right)


def row_indices(hashes: U64, field: str, size: int) -> NDArray[np.int64]:
    """Rows of a table of `size` rows for the hashes of a field, any shape.

    Fields that share a table are salted with their name: equal ids of two fields get unrelated rows.
    """
    return _rows(hashes ^ _field_salt(field), size)


def row_indices_by_field(fields: Sequence[tuple[str, U64]], size: int) -> list[NDArray[np.int64]]:
    """`row_indices` of the hashes of several fields, uint64[any] each, computed at once."""
    rows = concatenated_row_indices(fields, size)
    ends = list(accumulate(len(hashes) for _, hashes in fields))
    return [rows[start:end] for start, end in pairwise([0, *ends])]


def concatenated_row_indices(fields: Sequence[tuple[str, U64]], size: int) -> NDArray[np.int64]:
    """As `row_indices_by_field`, one field after another in one array."""
    return _rows(np.concatenate([hashes ^ _field_salt(field) for field, hashes in fields]), size)


def _rows(salted: U64, size: int) -> NDArray[np.int64]:
    return (mix(salted) % np.uint64(size)).astype(np.int64)


_salts: dict[str, np.uint64] = {}


def _field_salt(field: str) -> np.uint64:
    salt = _salts.get(field)
    if salt is None:
        salt = _salts[field] = np.uint64(hash_text("field " + field))
    return salt


def uniform(indices: NDArray[np.int64], columns: int, seed: int) -> NDArray[np.float32]:
    """float32[rows, columns], uniform in [−1, 1), each value a function of (row, column, seed) alone.

    Initial values of a table need not be stored: a row can be recomputed at any time.
    """
    cells = (indices[:, None] * columns + np.arange(columns)).astype(np.uint64)
    bits = mix(cells + mix(np.array([seed], dtype=np.uint64))) >> np.uint64(40)
    return (bits.astype(np.float64) / float(1 << 23) - 1.0).astype(np.float32)
