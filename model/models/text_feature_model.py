"""A model that reads no text itself, told what stage one's encoder says: P(level) and e_q·e_i."""

from dataclasses import replace

import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.layers.gradients import Gradients
from prectr.model.models.online_model import Forward, OnlineModel
from prectr.model.quality.explanation import Explained, explain
from prectr.model.text.pair_encoder import PairReader, open_encoder, told

_PAIRS = "pairs"


class WithText:
    """Puts what the text says into each batch before the model sees it; the encoder does not learn."""

    def __init__(self, inner: OnlineModel, config: TrainerConfig, device: torch.device) -> None:
        self._inner = inner
        self._infers = config.infers_levels
        self._reader = PairReader(open_encoder(config), config, device)
        self.reads = replace(inner.reads, texts=True)

    def forward(self, batch: Batch) -> Forward:
        """The model's, of the batch that it is told."""
        reading = self._reader.read(batch, learn=True)
        forward = self._inner.forward(told(batch, reading, infers_levels=self._infers))
        forward.kept[_PAIRS] = reading.kept
        return forward

    def gradients(self, batch: Batch, forward: Forward) -> Gradients:
        """The model's, and what is to be remembered of the texts."""
        inner = self._inner.gradients(batch, forward)
        return replace(inner, tables={**inner.tables, _PAIRS: forward.kept[_PAIRS]})

    def no_gradients(self) -> Gradients:
        """Of no pages."""
        inner = self._inner.no_gradients()
        return replace(inner, tables={**inner.tables, _PAIRS: self._reader.nothing()})

    def step(self, gradients: Gradients) -> None:
        """The model's; and the texts are remembered."""
        tables = dict(gradients.tables)
        self._reader.keep(tables.pop(_PAIRS))
        self._inner.step(replace(gradients, tables=tables))

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N]."""
        return self._inner.score(self._told(batch))

    def explained(self, batch: Batch) -> Explained:
        """The model's, of the batch that it is told."""
        return explain(self._inner, self._told(batch))

    def weights(self) -> dict[str, Tensor]:
        """The model's; stage one's are those of its folder."""
        return self._inner.weights()

    def export(self) -> dict[str, Tensor]:
        """The model's state, and the texts remembered."""
        inner = {f"model.{name}": tensor for name, tensor in self._inner.export().items()}
        return inner | {f"pairs.{name}": tensor for name, tensor in self._reader.export().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `export` gave. ValueError: it was made with another encoder."""
        self._reader.restore(_under("pairs.", tensors))
        self._inner.restore(_under("model.", tensors))

    def _told(self, batch: Batch) -> Batch:
        """The batch as the model is told of it; nothing is learned."""
        return told(batch, self._reader.read(batch, learn=False), infers_levels=self._infers)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
