"""The encoder's network: a small BERT over a pair, with heads for the relevance level and for two vectors."""

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel
from transformers.models.bert.modeling_bert import BertSelfAttention

from prectr.model.text.encoder.tokens import PairTokenizer, PairTokens

LEVELS: Final = 4
"""Relevance levels, 1 (irrelevant) to 4 (strongly relevant)."""

WIDTH: Final = 128
"""Of the representation of a pair."""

VECTOR: Final = 32
"""Width of the vectors of the query and of the item."""

ATTENTION: Final = "eager"
"""How attention is computed where `BertModel` does: plain products, as here; fused kernels are not the same on every
run, on some devices."""

_LAYERS: Final = 3
_HEADS: Final = 4
_INTERMEDIATE: Final = 512


class Encoded(NamedTuple):
    """What the encoder says of B pairs.

    pair: float32[B, 128]; level_logits: float32[B, 4], of levels 1 to 4; query, item: float32[B, 32], of length 1.
    """

    pair: Tensor
    level_logits: Tensor
    query: Tensor
    item: Tensor


class RelevanceEncoder(nn.Module):
    """A BERT of 3 layers, 128 wide, without dropout, and its heads.

    The query's tokens that the title has too, and the title's that the query has, are marked by their token type
    (2 and 3 in place of 0 and 1): a match of words need not be learned word by word. The pair's representation is
    read from `[CLS]`, the means of both parts, their product and their distance (as in InferSent, Conneau et al.
    2017); the marks and this reading are ours.
    """

    def __init__(self, config: BertConfig) -> None:
        """Make the network of a configuration, with weights from torch's random state."""
        super().__init__()
        width = config.hidden_size
        self.bert = BertModel(config)  # type: ignore[no-untyped-call]
        self.join = nn.Linear(5 * width, width)
        self.norm = nn.LayerNorm(width)
        self.levels = nn.Linear(width, LEVELS)
        self.query = nn.Linear(width, VECTOR)
        self.item = nn.Linear(width, VECTOR)

    def forward(self, tokens: PairTokens) -> Encoded:
        """Encode pairs."""
        hidden, first = self.states(tokens)
        query, item = _mean(hidden, tokens.mask & (tokens.types == 0)), _mean(hidden, tokens.types == 1)
        parts = torch.cat([first, query, item, query * item, (query - item).abs()], dim=1)
        pair = self.norm(functional.gelu(self.join(parts)))
        return Encoded(
            pair,
            self.level_logits(pair),
            functional.normalize(self.query(query), dim=1),
            functional.normalize(self.item(item), dim=1),
        )

    def states(self, tokens: PairTokens) -> tuple[Tensor, Tensor]:
        """What BERT says: of each token, float32[B, L, 128], zero where there is none; of `[CLS]`, pooled, [B, 128].

        It is what the forward pass of `BertModel` says, but only attention sees padding, which is a quarter of a batch
        or more: everything else works on the tokens that are there, one after the other.
        """
        there = tokens.mask.flatten().nonzero().squeeze(1)
        types = tokens.types + 2 * matches(tokens).long()
        places = torch.arange(tokens.ids.shape[1], device=tokens.ids.device).expand_as(tokens.ids)
        packed: Tensor = self.bert.embeddings(
            *(each.flatten().index_select(0, there).unsqueeze(0) for each in (tokens.ids, types, places))
        )[0]
        unseen = torch.zeros(tokens.mask.shape, device=packed.device).masked_fill(~tokens.mask, -torch.inf)
        bert: Any = self.bert
        for layer in bert.encoder.layer:
            heard = _attention(layer.attention.self, packed, there, unseen)
            packed = layer.attention.output(heard, packed)
            packed = layer.output(layer.intermediate(packed), packed)
        hidden = _unpacked(packed, there, tokens.mask.shape)
        return hidden, bert.pooler(hidden)

    def level_logits(self, pair: Tensor) -> Tensor:
        """float32[B, 4] from the representation of pairs, float32[B, 128]: for noise on it, without a second pass."""
        logits: Tensor = self.levels(pair)
        return logits


def matches(tokens: PairTokens) -> Tensor:
    """Which tokens the other part has too, bool[B, L]; the closing `[SEP]` of both parts is one."""
    same = tokens.ids[:, :, None] == tokens.ids[:, None, :]
    across = tokens.types[:, :, None] != tokens.types[:, None, :]
    found = (same & across & tokens.mask[:, None, :]).any(dim=2)
    return found & tokens.mask


def make_encoder(tokenizer: PairTokenizer, seed: int, *, layers: int = _LAYERS) -> RelevanceEncoder:
    """An untrained encoder for a vocabulary, in evaluation mode; the weights depend on the seed alone."""
    config = BertConfig(
        vocab_size=tokenizer.vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=_HEADS,
        intermediate_size=_INTERMEDIATE,
        max_position_embeddings=tokenizer.max_tokens,
        type_vocab_size=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        dtype="float32",
    )
    config._attn_implementation = ATTENTION
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RelevanceEncoder(config).eval()


def parameters_of(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def _attention(heads: BertSelfAttention, packed: Tensor, there: Tensor, unseen: Tensor) -> Tensor:
    """What each token hears, float32[T, 128], from BERT's self-attention with all heads' products in one.

    packed: float32[T, 128]. there: int64[T], where the tokens are in [B, L]. unseen: float32[B, L], −∞ at no token.
    """
    parts = (heads.query, heads.key, heads.value)
    weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
    said = _unpacked(functional.linear(packed, weight, bias), there, unseen.shape)
    asked, keys, values = said.view(*unseen.shape, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
    scores = asked @ keys.transpose(2, 3) * keys.shape[3] ** -0.5 + unseen[:, None, None, :]
    heard: Tensor = (torch.softmax(scores, dim=3) @ values).transpose(1, 2)
    return heard.reshape(unseen.numel(), -1).index_select(0, there)


def _unpacked(packed: Tensor, there: Tensor, shape: torch.Size) -> Tensor:
    """float32[B, L, any], zero where there is no token, from float32[T, any]."""
    padded = packed.new_zeros(shape.numel(), packed.shape[1])
    return padded.index_copy(0, there, packed).view(*shape, -1)


def _mean(hidden: Tensor, part: Tensor) -> Tensor:
    """Mean of the tokens of a part, float32[B, 128]; hidden: float32[B, L, 128], part: bool[B, L]."""
    weight = part.to(hidden.dtype)
    return torch.einsum("bl,blw->bw", weight, hidden) / weight.sum(dim=1, keepdim=True)
