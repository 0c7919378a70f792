"""What the trainer asks of a model: to score a batch and to learn from that very score."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from prectr.model.features.batch import Batch, FeatureNeeds
from prectr.model.features.hashing import U64
from prectr.model.layers.gradients import Gradients, SparseGradient
from prectr.model.layers.hashed_embedding import GatheredRows


class LossReduction(NamedTuple):
    """What a part of the loss is a mean over, where that is not the impressions of the batch.

    keys: uint64[M], of each thing; what has the same key on another rank is the same thing.
    each: float[M], the loss of each thing, weighted as the part is; made only where several ranks share a batch.
    """

    keys: U64
    per_item: Callable[[], Tensor]


@dataclass(slots=True)
class ForwardOutput:
    """One forward pass: the score that is measured and the losses that are learned from."""

    logits: Tensor
    """float[N], on the model's device, outside the graph: the log-odds of a click at the positions given."""
    losses: dict[str, Tensor]
    """The parts of the loss by name, each a scalar, a mean over the batch, already weighted; their sum is
    what is learned from."""
    gathered: dict[str, GatheredRows] = field(default_factory=dict)
    """The rows of the model's hashed tables that took part, by table."""
    state_updates: dict[str, SparseGradient] = field(default_factory=dict)
    """What the batch adds to tables that are not trained, by table."""
    counts: dict[str, Tensor] = field(default_factory=dict)
    """What is worth counting of the batch, by name, each a scalar outside the graph; nothing is learned from it."""
    loss_reductions: dict[str, LossReduction] = field(default_factory=dict)
    """Of the parts of the loss that are a mean over something else than the impressions: over what."""


class OnlineModel(Protocol):
    """A ranker that learns from a stream.

    Contract: `forward` changes nothing; `gradients` is called at most once for a `Forward`, right after it and
    on the same batch, and only if its losses are finite; then `step` with them, or with the sum of those of
    several ranks' shares of a batch. Scores use no dropout: what is measured is what is learned from. The score
    at position 1, for ranking, is `score(batch.at_position(1))`. `export` and `restore` carry everything that
    `step` changes (weights, optimizer, random state, own aggregates), bit for bit.
    """

    feature_needs: FeatureNeeds
    """What of a `Batch` has to be filled."""

    def forward(self, batch: Batch) -> ForwardOutput:
        """Score a batch of P pages and N impressions, and the losses of that score."""

    def gradients(self, batch: Batch, forward: ForwardOutput) -> Gradients:
        """Which way the losses of `forward` fall; no weight changes."""

    def zero_gradients(self) -> Gradients:
        """Those of a batch without pages: what a rank adds that has no share in a small batch."""

    def step(self, gradients: Gradients) -> None:
        """Take one step down; the gradients are used up."""

    def score(self, batch: Batch) -> Tensor:
        """Logits float[N] of a batch whose labels are not known, or not to be learned from."""

    def weights(self) -> dict[str, Tensor]:
        """Every trained parameter by name (not the optimizer's state), for a digest."""

    def state_dict(self) -> dict[str, Tensor]:
        """All state that learning has changed, as CPU tensors by name."""

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `export` gave, in a model that was just made. KeyError or RuntimeError: not such state."""
