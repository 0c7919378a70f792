"""The permutation importance of custom features: by how much the loss rises if the values of one are permuted.

Breiman 2001; Fisher et al. 2019. Prequential: measured on some batches, after these have been
scored and before they are learned from. Values of an item's feature are permuted within its page, so that each page
keeps its values; those of a page or context are permuted among the pages of the batch. Nothing that training reads or
draws is touched, and with several ranks each measures the same whole batches.

A feature that says the same as another one, or as the item's id, has little importance by this measure: the model
reads it there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import msgspec
import numpy as np
from torch import Tensor

from prectr.model.features.batch import Batch, Floats
from prectr.model.features.feature_slots import FeatureSlot, FeatureSlotsState
from prectr.model.features.feature_summary import FeaturesSummary, FeatureSummary
from prectr.model.quality.explanation import to_numpy
from prectr.stream.records import Example

_EARLY_BATCHES: Final = 256
_EARLY_INTERVAL: Final = 8
"""One in so many of the first batches is measured, so that short logs have figures,"""
_INTERVAL: Final = 128
"""and one in so many of the others, which costs a trainer about 3 %."""
_SLOTS_PER_BATCH: Final = 8
"""Features measured on one batch; where there are more, they take turns."""
_MAX_PAGES: Final = 64
"""Pages of a batch that are measured."""


class SlotImportance(msgspec.Struct):
    """Sums over the batches that a feature was measured on, with n impressions and a rise r of the summed loss (nats).

    impressions: Σ n. rise: Σ r. squares: Σ r². products: Σ r·n. squared_impressions: Σ n².
    """

    batches: int = 0
    impressions: int = 0
    rise: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    squared_impressions: float = 0.0

    def add(self, impressions: int, rise: float) -> None:
        """Add a batch."""
        self.batches += 1
        self.impressions += impressions
        self.rise += rise
        self.squares += rise * rise
        self.products += rise * impressions
        self.squared_impressions += float(impressions) ** 2

    @property
    def mean(self) -> float | None:
        """Rise of the log loss, nats per impression; None if never measured."""
        return self.rise / self.impressions if self.impressions else None

    @property
    def standard_error(self) -> float | None:
        """Of `mean`, from the spread between batches (ratio estimator); None with less than two batches."""
        if self.batches < 2 or self.mean is None:
            return None
        spread = self.squares - 2 * self.mean * self.products + self.mean**2 * self.squared_impressions
        return math.sqrt(max(spread, 0.0) * self.batches / (self.batches - 1)) / self.impressions


class PermutationImportanceState(msgspec.Struct):
    """State of a `PermutationImportance`. samples: batches measured. slots: by slot number, as far as measured."""

    samples: int = 0
    slots: list[SlotImportance] = []


class PermutationImportance:
    """Measures the importance of the features of one trainer."""

    def __init__(self, seed: int, state: PermutationImportanceState | None = None) -> None:
        """seed: of the permutations; state: of a checkpoint."""
        self._seed = seed
        self.state = state or PermutationImportanceState()

    def of(self, slot: int) -> SlotImportance:
        """The importance of a slot, by its number."""
        return self.state.slots[slot] if slot < len(self.state.slots) else SlotImportance()

    def measure(
        self,
        batch_number: int,
        examples: Sequence[Example],
        slots: Sequence[FeatureSlot],
        encode: Callable[[Sequence[Example]], Batch],
        score: Callable[[Batch], Tensor],
    ) -> None:
        """Measure some features on a batch, if it is one of those that are measured.

        Args:
            batch_number: batches learned from before it.
            examples: its pages.
            slots: the features that the model knows.
            encode, score: make a `Batch`, and its logits float32[N], without learning.
        """
        if not slots or not _is_measured(batch_number):
            return
        examples = examples[:_MAX_PAGES]
        first = self.state.samples * _SLOTS_PER_BATCH
        chosen = [(first + each) % len(slots) for each in range(min(_SLOTS_PER_BATCH, len(slots)))]
        # All variants are scored as one batch: each text is then encoded once.
        batch = encode([*examples] * (1 + len(chosen)))
        impressions = batch.impressions // (1 + len(chosen))
        random = np.random.default_rng([self._seed, batch_number])
        for variant, slot in enumerate(chosen, 1):
            batch = _permuted(batch, slot, slots[slot], variant, len(examples), random)
        losses = _log_losses(batch, to_numpy(score(batch))).reshape(-1, impressions).sum(axis=1)
        self.state.slots += [SlotImportance() for _ in range(len(slots) - len(self.state.slots))]
        for slot, loss in zip(chosen, losses[1:].tolist(), strict=True):
            self.state.slots[slot].add(impressions, loss - float(losses[0]))
        self.state.samples += 1


def _is_measured(batch_number: int) -> bool:
    interval = _EARLY_INTERVAL if batch_number < _EARLY_BATCHES else _INTERVAL
    return batch_number % interval == interval - 1


def _permuted(
    batch: Batch, number: int, slot: FeatureSlot, variant: int, pages: int, random: np.random.Generator
) -> Batch:
    """Exchange a slot's values in the copy `variant` of the `pages` pages that `batch` repeats."""
    if slot.source != "item":
        rows = variant * pages + np.arange(pages)
        return replace(batch, page_features=batch.page_features.permuted(number, rows, random.permutation(rows)))
    start, end = batch.page_starts[variant * pages], batch.page_starts[(variant + 1) * pages]
    rows = np.arange(start, end)
    order = rows[np.lexsort((random.random(len(rows)), batch.page_of[start:end]))]
    return replace(batch, item_features=batch.item_features.permuted(number, rows, order))


def _log_losses(batch: Batch, logits: Floats) -> Floats:
    """float64[N], nats."""
    signed = np.where(batch.labels == 1, -logits, logits)
    losses: Floats = np.logaddexp(0.0, signed)
    return losses


def summarise_features(state: FeatureSlotsState, importance: PermutationImportance) -> FeaturesSummary:
    """Summarise the slots of a trainer, with the importance of each."""
    return FeaturesSummary(
        read=[
            _summary(slot, importance.of(number), state.items if slot.source == "item" else state.pages)
            for number, slot in enumerate(state.slots)
        ],
        ignored=state.ignored,
    )


def _summary(slot: FeatureSlot, importance: SlotImportance, rows: int) -> FeatureSummary:
    """rows: items, or pages, seen so far."""
    is_number = slot.kind == "number"
    return FeatureSummary(
        source=slot.source,
        name=slot.name,
        kind=slot.kind,
        values=slot.values,
        missing=rows - slot.values,
        least=slot.moments.least if is_number else None,
        greatest=slot.moments.greatest if is_number else None,
        importance=importance.mean,
        importance_error=importance.standard_error,
        importance_impressions=importance.impressions,
    )
