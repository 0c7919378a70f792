"""A model that reads no text itself, told what stage one's encoder says: P(level) and e_q·e_i."""

from dataclasses import replace

import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.layers.gradients import Gradients
from prectr.model.models.online_model import ForwardOutput, OnlineModel
from prectr.model.quality.explanation import Explanation, explain
from prectr.model.text.pair_encoder import CachedPairEncoder, open_encoder, with_text_features

_PAIRS = "pairs"


class TextFeatureModel:
    """Puts what the text says into each batch before the model sees it; the encoder does not learn."""

    def __init__(self, inner: OnlineModel, config: TrainerConfig, device: torch.device) -> None:
        self._inner = inner
        self._infers_levels = config.infers_levels
        self._pair_encoder = CachedPairEncoder(open_encoder(config), config, device)
        self.feature_needs = replace(inner.feature_needs, texts=True)

    def forward(self, batch: Batch) -> ForwardOutput:
        """The model's, of the batch that it is told."""
        encodings = self._pair_encoder.encode(batch, learn=True)
        forward = self._inner.forward(with_text_features(batch, encodings, infers_levels=self._infers_levels))
        forward.state_updates[_PAIRS] = encodings.cache_update
        return forward

    def gradients(self, batch: Batch, forward: ForwardOutput) -> Gradients:
        """The model's, and what is to be remembered of the texts."""
        inner = self._inner.gradients(batch, forward)
        return replace(inner, tables={**inner.tables, _PAIRS: forward.state_updates[_PAIRS]})

    def zero_gradients(self) -> Gradients:
        """Of no pages."""
        inner = self._inner.zero_gradients()
        return replace(inner, tables={**inner.tables, _PAIRS: self._pair_encoder.empty_update()})

    def step(self, gradients: Gradients) -> None:
        """The model's; and the texts are remembered."""
        tables = dict(gradients.tables)
        self._pair_encoder.apply(tables.pop(_PAIRS))
        self._inner.step(replace(gradients, tables=tables))

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N]."""
        return self._inner.score(self._with_text_features(batch))

    def explain(self, batch: Batch) -> Explanation:
        """The model's, of the batch that it is told."""
        return explain(self._inner, self._with_text_features(batch))

    def weights(self) -> dict[str, Tensor]:
        """The model's; stage one's are those of its folder."""
        return self._inner.weights()

    def state_dict(self) -> dict[str, Tensor]:
        """The model's state, and the texts remembered."""
        inner = {f"model.{name}": tensor for name, tensor in self._inner.state_dict().items()}
        return inner | {f"pairs.{name}": tensor for name, tensor in self._pair_encoder.state_dict().items()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `export` gave. ValueError: it was made with another encoder."""
        self._pair_encoder.load_state_dict(_with_prefix("pairs.", tensors))
        self._inner.load_state_dict(_with_prefix("model.", tensors))

    def _with_text_features(self, batch: Batch) -> Batch:
        """The batch as the model is told of it; nothing is learned."""
        return with_text_features(
            batch, self._pair_encoder.encode(batch, learn=False), infers_levels=self._infers_levels
        )


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
