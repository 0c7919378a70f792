"""Counts by key (visitor or query): how many keys there are, and how much the largest has."""

from hashlib import blake2b
from typing import Final

import msgspec

CAPACITY: Final = 1 << 17
"""Keys counted exactly. Beyond, the distinct ones are estimated, and the largest one's count is a lower bound."""
_SAMPLED_KEYS: Final = 1 << 16


class KeyReport(msgspec.Struct):
    """How events spread over keys. `exact`: whether `keys` and `largest` are; else estimate and lower bound."""

    keys: int
    events: int
    largest_key: str | None
    largest: int
    exact: bool


class KeyCounts:
    """Counts of the most frequent keys, and the number of distinct ones, in bounded memory.

    Lossy counting (Manku and Motwani 2002): where there are too many keys, the rarer half is dropped. Distinct keys
    are then estimated from those whose hash ends in enough zeros (Gibbons 2001); standard error below 1 %.
    """

    def __init__(self, capacity: int = CAPACITY, sampled_keys: int = _SAMPLED_KEYS) -> None:
        self._capacity = capacity
        self._sampled_keys = sampled_keys
        self._counts: dict[str, int] = {}
        self._events = 0
        self._sample: set[int] | None = None
        self._zeros = 0

    def add(self, key: str) -> None:
        """Count an event of a key."""
        self._events += 1
        counts = self._counts
        if key in counts:
            counts[key] += 1
            return
        counts[key] = 1
        if self._sample is not None:
            self._add_to_sample(key)
        if len(counts) > self._capacity:
            self._drop_rare()

    def report(self) -> KeyReport:
        """Summarise."""
        largest = max(self._counts, key=self._counts.__getitem__, default=None)
        return KeyReport(
            keys=len(self._counts) if self._sample is None else len(self._sample) << self._zeros,
            events=self._events,
            largest_key=largest,
            largest=0 if largest is None else self._counts[largest],
            exact=self._sample is None,
        )

    def _drop_rare(self) -> None:
        if self._sample is None:
            self._sample = set()
            for key in self._counts:
                self._add_to_sample(key)
        limit = sorted(self._counts.values())[len(self._counts) // 2]
        self._counts = {key: count for key, count in self._counts.items() if count > limit}

    def _add_to_sample(self, key: str) -> None:
        assert self._sample is not None
        value = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")
        if value & ((1 << self._zeros) - 1):
            return
        self._sample.add(value)
        while len(self._sample) > self._sampled_keys:
            self._zeros += 1
            mask = (1 << self._zeros) - 1
            self._sample = {each for each in self._sample if not each & mask}
