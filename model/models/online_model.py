"""The contract between trainer and model: score a batch, then learn from that very score."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from prectr.model.features.batch import Batch, FeatureNeeds
from prectr.model.features.hashing import U64
from prectr.model.features.level_prior import Bools
from prectr.model.layers.gradients import Gradients, StateUpdate
from prectr.model.layers.hashed_embedding import GatheredRows


class LossReduction(NamedTuple):
    """The items that a part of the loss averages over, where these are not the impressions of the batch.

    keys: uint64[M], identity of each item; equal keys on several ranks are one item.
    per_item: returns float32[M], each item's loss, weighted like the part; called only with several ranks.
    """

    keys: U64
    per_item: Callable[[], Tensor]


@dataclass(slots=True)
class ForwardOutput:
    """One forward pass: the measured score, and the losses to learn from."""

    logits: Tensor
    """float32[N], on the model's device, detached: log-odds of a click at the positions given."""
    losses: dict[str, Tensor]
    """The parts of the loss by name, each a weighted scalar mean over the batch; training minimises their sum."""
    gathered: dict[str, GatheredRows] = field(default_factory=dict)
    """The rows of the hashed tables that the batch read, by table."""
    state_updates: dict[str, StateUpdate] = field(default_factory=dict)
    """What the batch adds to state that is not trained, by the state's name."""
    counts: dict[str, Tensor] = field(default_factory=dict)
    """Statistics of the batch by name, each a detached scalar; not learned from."""
    loss_reductions: dict[str, LossReduction] = field(default_factory=dict)
    """For those parts of the loss that do not average over impressions: what they average over."""


class OnlineModel(Protocol):
    """A ranker that learns from a stream.

    Contract: `forward` changes nothing; `gradients` is called at most once per `ForwardOutput`, right after it and
    on the same batch, and only if its losses are finite; then `step` with them, or with their sum over the ranks
    that share the batch. If one is not finite, `Gradients.dense` is zeroed and no step taken. Scores use no dropout:
    the measured score is the one that is learned from. The score at position 1, for ranking, is
    `score(batch.at_position(1))`. `training_state` and `load_training_state` carry everything that `step` changes
    (weights, optimizers, state of its own), bit for bit.
    """

    feature_needs: FeatureNeeds
    """The optional parts of a `Batch` that the model reads."""

    def forward(self, batch: Batch) -> ForwardOutput:
        """Score a batch of P pages and N impressions, and compute the losses of that score."""

    def gradients(self, batch: Batch, forward: ForwardOutput) -> Gradients:
        """Compute the gradients of the losses of `forward`; no weight changes."""

    def zero_gradients(self) -> Gradients:
        """Zero gradients (empty batch): the contribution of a rank whose shard is empty."""

    def parameter_at(self, index: int) -> str:
        """The name of the dense parameter that holds the element `index` of `Gradients.dense`."""

    def step(self, gradients: Gradients) -> None:
        """Update weights and state; `gradients` must not be used again."""

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N], without learning; labels are not read."""

    def learned_levels(self) -> Bools:
        """bool[4]: the relevance levels that the model has learned from; candidates of others borrow from these."""

    def weights(self) -> dict[str, Tensor]:
        """Every trained parameter by name, without optimizer state, for a digest."""

    def training_state(self) -> dict[str, Tensor]:
        """All state that learning has changed, as CPU tensors by name."""

    def load_training_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `training_state` returned, into a new model.

        Raises:
            KeyError, RuntimeError, ValueError: the tensors are of another model.
        """
