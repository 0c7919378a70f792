"""The graded pairs of stage one, learned again beside the clicks, so that levels go on meaning what people said."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.network import LEVELS, RelevanceEncoder
from prectr.model.text.encoder.tokens import PairTokenizer, PairTokens

_PSEUDO_COUNT = 1.0


class RehearsalBuffer:
    """Draws graded pairs for a batch; which ones is a function of seed and step alone."""

    def __init__(self, pairs: Sequence[GradedPair], tokenizer: PairTokenizer, device: torch.device, seed: int) -> None:
        self._pairs = pairs
        self._tokenizer = tokenizer
        self._device = device
        self._seed = seed

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def level_shares(self) -> Tensor:
        """float32[4]: the shares of the levels, drawn evenly over candidates; even where there are no pairs."""
        counts = np.bincount([pair.level - 1 for pair in self._pairs], minlength=LEVELS) + _PSEUDO_COUNT
        return torch.from_numpy((counts / counts.sum()).astype(np.float32)).to(self._device)

    def sample(self, count: int, step: int) -> tuple[PairTokens, Tensor]:
        """Tokens of so many pairs and their levels, int64[count], 0 to 3."""
        indices = np.random.default_rng([self._seed, step]).integers(len(self._pairs), size=count)
        sampled = [self._pairs[index] for index in indices.tolist()]
        tokens = self._tokenizer.encode([each.pair for each in sampled]).to(self._device)
        return tokens, torch.tensor([each.level - 1 for each in sampled], device=self._device)


def rehearsal_loss(
    network: RelevanceEncoder, tokens: PairTokens, levels: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Log loss of the levels, mean over the pairs. weight, bias: of the level head as it is now."""
    logits = torch.nn.functional.linear(network(tokens).pair_embedding, weight, bias)
    return torch.nn.functional.cross_entropy(logits, levels)
