"""The partition of a key: murmur2 as in Kafka's producers, for many keys at a time."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

_SEED: Final = 0x9747B28C
_M: Final = np.uint32(0x5BD1E995)
_R: Final = np.uint32(24)
_MAX_CACHED_HASHES: Final = 1 << 18
_MIN_NUMPY_KEYS: Final = 128
"""Below this many keys a plain loop is faster than numpy's calls."""

_hashes: dict[str, int] = {}
"""Cache of positive hashes; cleared when full, which does not change results."""


def partitions_of(keys: Sequence[str | None], partitions: int) -> list[int]:
    """Return the partition, 0 to `partitions` - 1, of each key; None (a line without a user) is in partition 0.

    The same as Kafka's default partitioner: (murmur2(UTF-8 of the key) & 0x7fffffff) mod partitions.
    """
    try:
        return [0 if key is None else _hashes[key] % partitions for key in keys]
    except KeyError:
        hashes = _hashes_of(keys)
    return [0 if key is None else hashes[key] % partitions for key in keys]


def _hashes_of(keys: Sequence[str | None]) -> dict[str, int]:
    missing = [key for key in dict.fromkeys(keys) if key is not None and key not in _hashes]
    new_hashes = dict(zip(missing, murmur2([key.encode() for key in missing]), strict=True))
    if len(_hashes) + len(new_hashes) > _MAX_CACHED_HASHES:
        known = {key: _hashes[key] for key in keys if key is not None and key in _hashes}
        _hashes.clear()
        _hashes.update(known)
    _hashes.update(new_hashes)
    return _hashes


def murmur2(keys: Sequence[bytes]) -> list[int]:
    """Return Kafka's murmur2 of each key with the sign bit cleared: 0 to 2³¹ - 1."""
    if len(keys) < _MIN_NUMPY_KEYS:
        return [_murmur2_of_one(key) for key in keys]
    by_length: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        by_length.setdefault(len(key), []).append(index)
    hashes = [0] * len(keys)
    for length, indices in by_length.items():
        table = np.frombuffer(b"".join([keys[index] for index in indices]), dtype=np.uint8)
        for index, value in zip(indices, _murmur2(table.reshape(len(indices), length)).tolist(), strict=True):
            hashes[index] = value
    return hashes


def _murmur2(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Hash the rows of a table [keys, length]; arithmetic modulo 2³² as in Kafka's `Utils.murmur2`."""
    count, length = keys.shape
    hashes = np.full(count, _SEED ^ length, dtype=np.uint32)
    words = length // 4
    table = np.ascontiguousarray(keys[:, : words * 4]).view("<u4").astype(np.uint32, copy=False)
    for index in range(words):
        word = table[:, index] * _M
        word ^= word >> _R
        word *= _M
        hashes *= _M
        hashes ^= word
    rest = length % 4
    if rest:
        for index in range(rest):
            hashes ^= keys[:, words * 4 + index].astype(np.uint32) << np.uint32(8 * index)
        hashes *= _M
    hashes ^= hashes >> np.uint32(13)
    hashes *= _M
    hashes ^= hashes >> np.uint32(15)
    return hashes & np.uint32(0x7FFFFFFF)


def _murmur2_of_one(key: bytes) -> int:
    length = len(key)
    value = _SEED ^ length
    words = length & ~3
    for start in range(0, words, 4):
        word = int.from_bytes(key[start : start + 4], "little") * 0x5BD1E995 & 0xFFFFFFFF
        word = (word ^ (word >> 24)) * 0x5BD1E995 & 0xFFFFFFFF
        value = (value * 0x5BD1E995 & 0xFFFFFFFF) ^ word
    if length & 3:
        value = (value ^ int.from_bytes(key[words:], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    value = (value ^ (value >> 13)) * 0x5BD1E995 & 0xFFFFFFFF
    return (value ^ (value >> 15)) & 0x7FFFFFFF
