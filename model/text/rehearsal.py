"""Rehearsal: stage one's graded pairs are trained on beside the clicks, so that levels keep their meaning."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.network import RelevanceEncoder
from prectr.model.text.encoder.tokens import PairTokenizer, PairTokens
from prectr.state.aggregates import LEVEL_COUNT

_PSEUDO_COUNT: Final = 1.0


class RehearsalBuffer:
    """Samples graded pairs for a batch, as a function of seed and step alone."""

    def __init__(self, pairs: Sequence[GradedPair], tokenizer: PairTokenizer, device: torch.device, seed: int) -> None:
        self._pairs = pairs
        self._tokenizer = tokenizer
        self._device = device
        self._seed = seed

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def level_shares(self) -> Tensor:
        """float32[4]: shares of the levels among the pairs, which stand for candidates; uniform without pairs."""
        counts = np.bincount([pair.level - 1 for pair in self._pairs], minlength=LEVEL_COUNT) + _PSEUDO_COUNT
        return torch.from_numpy((counts / counts.sum()).astype(np.float32)).to(self._device)

    def sample(self, count: int, step: int) -> tuple[PairTokens, Tensor]:
        """Sample pairs: their tokens, and their levels int64[count], 0 to 3."""
        indices = np.random.default_rng([self._seed, step]).integers(len(self._pairs), size=count)
        sampled = [self._pairs[index] for index in indices.tolist()]
        tokens = self._tokenizer.encode([each.pair for each in sampled]).to(self._device)
        return tokens, torch.tensor([each.level - 1 for each in sampled], device=self._device)


def rehearsal_loss(encoder: RelevanceEncoder, relevance_head: Module, tokens: PairTokens, levels: Tensor) -> Tensor:
    """Log loss of the levels int64[B], mean over the pairs, with the current encoder and relevance head."""
    return torch.nn.functional.cross_entropy(relevance_head(encoder(tokens).pair_embedding), levels)
