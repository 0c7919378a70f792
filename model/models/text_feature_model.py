"""A model without a text encoder of its own, given text features of stage one's encoder: P(level) and e_q·e_i."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.features.level_prior import Bools
from prectr.model.layers.gradients import Gradients
from prectr.model.models.online_model import ForwardOutput, OnlineModel
from prectr.model.models.prefixed_tensors import add_prefix, select_prefix
from prectr.model.quality.explanation import Explanation, explain
from prectr.model.text.encoder.artifact import EncoderArtifact
from prectr.model.text.pair_encoder import CachedPairEncoder, with_text_features

_PAIR_CACHE: Final = "pair_cache"


class TextFeatureModel:
    """Adds text features to each batch before the inner model reads it; the encoder is not trained."""

    def __init__(
        self, inner: OnlineModel, config: TrainerConfig, device: torch.device, artifact: EncoderArtifact
    ) -> None:
        self._inner = inner
        self._infers_levels = config.infers_levels
        self._pair_encoder = CachedPairEncoder(artifact, config, device)
        self.feature_needs = replace(inner.feature_needs, texts=True)

    def forward(self, batch: Batch) -> ForwardOutput:
        """The inner model's forward pass, with text features."""
        encodings = self._pair_encoder.encode(batch, learn=True)
        forward = self._inner.forward(with_text_features(batch, encodings, infers_levels=self._infers_levels))
        forward.state_updates[_PAIR_CACHE] = encodings.cache_update
        return forward

    def gradients(self, batch: Batch, forward: ForwardOutput) -> Gradients:
        """The inner model's gradients, and the update of the pair cache."""
        return replace(self._inner.gradients(batch, forward), state_updates=forward.state_updates)

    def zero_gradients(self) -> Gradients:
        """Zero gradients (empty batch)."""
        zero = self._inner.zero_gradients()
        return replace(zero, state_updates={**zero.state_updates, _PAIR_CACHE: self._pair_encoder.empty_update()})

    def parameter_at(self, index: int) -> str:
        """The inner model's."""
        return self._inner.parameter_at(index)

    def step(self, gradients: Gradients) -> None:
        """Update the pair cache and the inner model."""
        self._pair_encoder.apply(gradients.state_updates[_PAIR_CACHE])
        self._inner.step(gradients)

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N], without learning."""
        return self._inner.score(self._with_text_features(batch))

    def learned_levels(self) -> Bools:
        """The inner model's."""
        return self._inner.learned_levels()

    def explain(self, batch: Batch) -> Explanation:
        """The inner model's explanation, with text features."""
        return explain(self._inner, self._with_text_features(batch))

    def weights(self) -> dict[str, Tensor]:
        """The inner model's weights; the encoder's are those of its artifact."""
        return self._inner.weights()

    def training_state(self) -> dict[str, Tensor]:
        """The inner model's state, and the pair cache."""
        return add_prefix("model.", self._inner.training_state()) | add_prefix(
            f"{_PAIR_CACHE}.", self._pair_encoder.state_dict()
        )

    def load_training_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `training_state` returned. CheckpointError: it was trained with another encoder."""
        self._pair_encoder.load_state_dict(select_prefix(f"{_PAIR_CACHE}.", tensors))
        self._inner.load_training_state(select_prefix("model.", tensors))

    def _with_text_features(self, batch: Batch) -> Batch:
        encodings = self._pair_encoder.encode(batch, learn=False)
        return with_text_features(batch, encodings, infers_levels=self._infers_levels)
