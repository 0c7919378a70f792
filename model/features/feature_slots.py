"""Slots of custom features: which features a model reads, their running statistics, and the rows that they hash to.

A slot is a source, a name and a kind: a name that has numbers on some pages and strings on others has two. Slots are
assigned, and statistics counted, in the total order, after a batch has been scored: a score never depends on a value
that came with or after its own page, and resumed, replayed and data-parallel runs have the same slots.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from prectr.model.config import TrainerConfig
from prectr.model.features.hashing import MISSING, U64, cross, hash_text
from prectr.model.features.observed_features import SOURCES, ObservedColumn, ObservedFeatures, Source
from prectr.model.features.standardise import MAX_SQUASHED, RunningMoments, squashed

Kind = Literal["number", "string"]

AUTO: Final = "auto"
NONE: Final = "none"

_KNOTS_PER_UNIT: Final = 2
_FIRST_KNOT: Final = -int(MAX_SQUASHED) * _KNOTS_PER_UNIT
_SLOPE_SCALE: Final = 0.5
_MAX_SLOPE_WEIGHT: Final = 2.0
"""Bounds the step of the row that a number's slope is learned in."""
_SLOPE: Final = 1 << 32
"""Stands for the slope among the numbers of the knots."""
_NUMBER_ROWS: Final = 3
_MAX_IGNORED: Final = 32
"""Names of ignored features that are counted."""


class FeatureSlot(msgspec.Struct):
    """A custom feature that models read. values: how many there were so far; moments: of a number."""

    source: Source
    name: str
    kind: Kind
    values: int = 0
    moments: RunningMoments = msgspec.field(default_factory=RunningMoments)


class FeatureSlotsState(msgspec.Struct):
    """The state of `FeatureSlots`.

    slots: in the order assigned. pages, items: seen so far. ignored: values of features that have no slot, by source
    and name, of the first 32 such features.
    """

    slots: list[FeatureSlot] = []
    pages: int = 0
    items: int = 0
    ignored: dict[Source, dict[str, int]] = {}


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """The custom features of R items or pages, as weighted hashed rows; K columns.

    hashes: uint64[R, K]. weights: float32[R, K], the factor of each row. slots: int64[K], the slot of each column.
    A string has one column, its value. A number has three: the two knots around its standardised value, weighted by
    nearness, and a slope, weighted by that value: together a function linear between the knots (Gorishniy et al.
    2022). A value that is missing has a row of its own.
    """

    hashes: U64
    weights: NDArray[np.float32]
    slots: NDArray[np.int64]

    def permuted(self, slot: int, rows: NDArray[np.int64], order: NDArray[np.int64]) -> "FeatureRows":
        """The same features, except that at `rows` the slot's values are those of `order`; int64[any] each."""
        columns = np.flatnonzero(self.slots == slot)
        hashes, weights = self.hashes.copy(), self.weights.copy()
        hashes[np.ix_(rows, columns)] = self.hashes[np.ix_(order, columns)]
        weights[np.ix_(rows, columns)] = self.weights[np.ix_(order, columns)]
        return FeatureRows(hashes, weights, self.slots)


class FeatureSlots:
    """The slots of one trainer, assigned as features are first seen."""

    def __init__(self, config: TrainerConfig) -> None:
        """config: `page_features`, `item_features`, `context_features` and `feature_limit` decide what gets a slot."""
        self._declared: dict[Source, tuple[str, ...]] = {
            "page": config.page_features,
            "item": config.item_features,
            "context": config.context_features,
        }
        self._limit = config.feature_limit
        self._restore(FeatureSlotsState())

    def _restore(self, state: FeatureSlotsState) -> None:
        self.state = state
        self._numbers = {_key_of(slot): number for number, slot in enumerate(state.slots)}
        self._hashes = [_hash_of(slot) for slot in state.slots]

    @property
    def slots(self) -> list[FeatureSlot]:
        """The slots so far; a slot's place in the list is its number."""
        return self.state.slots

    def load_state(self, state: FeatureSlotsState) -> None:
        """Restore `state` of a checkpoint."""
        self._restore(state)

    def encode(
        self, observed: ObservedFeatures, sources: Iterable[Source], hash_value: Callable[[str], int]
    ) -> FeatureRows:
        """The features of the batch's items, or of its pages, by the slots and statistics so far.

        Args:
            observed: the batch.
            sources: `item`, or one or both of the others.
            hash_value: `hash_text`, possibly with a cache.
        """
        parts = [self._encode(observed, source, hash_value) for source in sources]
        return _beside(parts)

    def update(self, observed: ObservedFeatures) -> None:
        """Count a scored batch, all pages of it in the total order: assign slots, and update statistics."""
        self.state.pages += observed.pages
        self.state.items += observed.items
        for source in SOURCES:
            for (name, kind), column in observed.columns[source].items():
                values = column.values if kind is str else [value for value in column.values if math.isfinite(value)]  # type: ignore[arg-type]
                if not values:
                    continue
                slot = self._slot(source, name, kind)
                if slot is None:
                    self._ignore(source, name, len(values))
                    continue
                slot.values += len(values)
                if kind is not str:
                    slot.moments.add(np.array(values, dtype=np.float64))

    def is_declared(self, source: Source, name: str) -> bool:
        """Whether the settings let the feature have a slot, as far as the limit allows."""
        declared = self._declared[source]
        return declared == (AUTO,) or (declared != (NONE,) and name in declared)

    def _slot(self, source: Source, name: str, kind: type) -> FeatureSlot | None:
        """The slot of a feature, assigned now if it may have one; else None."""
        number = self._numbers.get((source, name, kind))
        if number is None:
            if not self.is_declared(source, name) or self._is_full(source):
                return None
            number = self._numbers[source, name, kind] = len(self.slots)
            slot = FeatureSlot(source, name, "string" if kind is str else "number")
            self.slots.append(slot)
            self._hashes.append(_hash_of(slot))
        return self.slots[number]

    def _is_full(self, source: Source) -> bool:
        if self._declared[source] != (AUTO,):
            return False
        return sum(slot.source == source for slot in self.slots) >= self._limit

    def _ignore(self, source: Source, name: str, values: int) -> None:
        ignored = self.state.ignored.setdefault(source, {})
        if name in ignored or len(ignored) < _MAX_IGNORED:
            ignored[name] = ignored.get(name, 0) + values

    def _encode(self, observed: ObservedFeatures, source: Source, hash_value: Callable[[str], int]) -> FeatureRows:
        rows = observed.rows_of(source)
        numbers, strings = (
            [n for n, slot in enumerate(self.slots) if slot.source == source and slot.kind == kind]
            for kind in ("number", "string")
        )
        if not numbers and not strings:
            return no_features(rows)
        columns = observed.columns[source]
        parts = [
            self._encode_numbers(numbers, rows, columns) if numbers else no_features(rows),
            self._encode_strings(strings, rows, columns, hash_value) if strings else no_features(rows),
        ]
        return _beside(parts)

    def _encode_numbers(
        self, numbers: list[int], rows: int, columns: dict[tuple[str, type], ObservedColumn]
    ) -> FeatureRows:
        """Three columns for each of the slots `numbers`."""
        values = np.full((rows, len(numbers)), np.nan)
        for place, number in enumerate(numbers):
            if column := columns.get((self.slots[number].name, float)):
                values[column.rows, place] = column.values
        values[~np.isfinite(values)] = np.nan
        moments = [self.slots[number].moments for number in numbers]
        standardised = squashed(
            values, np.array([each.mean for each in moments]), np.array([each.deviation for each in moments])
        )
        missing = np.isnan(standardised)
        standardised[missing] = 0.0
        place_of = standardised * _KNOTS_PER_UNIT
        below = np.floor(place_of)
        nearness = place_of - below
        knot = (below - _FIRST_KNOT).astype(np.uint64)
        keys = np.stack([knot, knot + np.uint64(1), np.full_like(knot, _SLOPE)], axis=2)
        keys[missing] = MISSING
        slope = np.clip(standardised * _SLOPE_SCALE, -_MAX_SLOPE_WEIGHT, _MAX_SLOPE_WEIGHT)
        weights = np.stack([1.0 - nearness, nearness, slope], axis=2).astype(np.float32)
        slot_hashes = np.array([self._hashes[number] for number in numbers], dtype=np.uint64)
        shape = rows, _NUMBER_ROWS * len(numbers)
        return FeatureRows(
            cross(slot_hashes[None, :, None], keys).reshape(shape),
            weights.reshape(shape),
            np.repeat(np.array(numbers), _NUMBER_ROWS),
        )

    def _encode_strings(
        self,
        strings: list[int],
        rows: int,
        columns: dict[tuple[str, type], ObservedColumn],
        hash_value: Callable[[str], int],
    ) -> FeatureRows:
        """A column for each of the slots `strings`."""
        values = np.full((rows, len(strings)), MISSING, dtype=np.uint64)
        for place, number in enumerate(strings):
            if column := columns.get((self.slots[number].name, str)):
                values[column.rows, place] = [hash_value(str(value)) for value in column.values]
        slot_hashes = np.array([self._hashes[number] for number in strings], dtype=np.uint64)
        return FeatureRows(
            cross(slot_hashes[None, :], values), np.ones(values.shape, dtype=np.float32), np.array(strings)
        )


def no_features(rows: int) -> FeatureRows:
    """The features of items or pages that have none."""
    return FeatureRows(
        np.empty((rows, 0), dtype=np.uint64), np.empty((rows, 0), dtype=np.float32), np.empty(0, dtype=np.int64)
    )


def _beside(parts: Sequence[FeatureRows]) -> FeatureRows:
    """The columns of several features of the same items or pages."""
    filled = [part for part in parts if part.hashes.size]
    if len(filled) <= 1:
        return filled[0] if filled else parts[0]
    return FeatureRows(
        np.concatenate([part.hashes for part in filled], axis=1),
        np.concatenate([part.weights for part in filled], axis=1),
        np.concatenate([part.slots for part in filled]),
    )


def _key_of(slot: FeatureSlot) -> tuple[Source, str, type]:
    return slot.source, slot.name, str if slot.kind == "string" else float


def _hash_of(slot: FeatureSlot) -> int:
    # repr delimits the fields, so that no two slots have the same text.
    return hash_text(repr((slot.source, slot.name, slot.kind)))
