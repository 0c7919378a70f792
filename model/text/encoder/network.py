"""The encoder's network: a small BERT over a pair, with heads for the relevance level and for two vectors."""

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel
from transformers.models.bert.modeling_bert import BertSelfAttention

from prectr.model.text.encoder.tokens import PairTokenizer, PairTokens
from prectr.state.aggregates import LEVEL_COUNT

HIDDEN_SIZE: Final = 128
"""Width of the representation of a pair."""

VECTOR_SIZE: Final = 32
"""Width of the vectors of the query and of the item."""

ATTENTION: Final = "eager"
"""Attention implementation of `BertModel`: plain products, as here; fused kernels are not deterministic on some
devices."""

HEADS: Final = 4
"""Attention heads of each layer."""

TOKEN_TYPES: Final = 4
"""Query and title, each with and without a match in the other."""

_LAYERS: Final = 3
_INTERMEDIATE_SIZE: Final = 512


class EncoderOutput(NamedTuple):
    """Encodings of B pairs.

    pair_embedding: float32[B, 128]. level_logits: float32[B, 4], of levels 1 to 4. query_vector, item_vector:
    float32[B, 32], of length 1.
    """

    pair_embedding: Tensor
    level_logits: Tensor
    query_vector: Tensor
    item_vector: Tensor


class RelevanceEncoder(nn.Module):
    """A BERT of 3 layers, 128 wide, without dropout, and its heads.

    Tokens that query and title share are marked by their token type (2 and 3 instead of 0 and 1), so that matches
    need not be learned word by word. The pair's representation is computed from `[CLS]`, the means of both parts,
    their product and their distance (as in InferSent, Conneau et al. 2017). Marks and representation are a
    reconstruction.
    """

    def __init__(self, config: BertConfig) -> None:
        """Make the network, with weights from torch's random state."""
        super().__init__()
        width = config.hidden_size
        self.bert = BertModel(config)  # type: ignore[no-untyped-call]
        self.join = nn.Linear(5 * width, width)
        self.norm = nn.LayerNorm(width)
        self.levels = nn.Linear(width, LEVEL_COUNT)
        self.query = nn.Linear(width, VECTOR_SIZE)
        self.item = nn.Linear(width, VECTOR_SIZE)

    def forward(self, tokens: PairTokens) -> EncoderOutput:
        """Encode pairs."""
        hidden, first = self.hidden_states(tokens)
        query, item = (
            _masked_mean(hidden, tokens.attention_mask & (tokens.token_type_ids == 0)),
            _masked_mean(hidden, tokens.token_type_ids == 1),
        )
        parts = torch.cat([first, query, item, query * item, (query - item).abs()], dim=1)
        pair = self.norm(functional.gelu(self.join(parts)))
        return EncoderOutput(
            pair,
            self.level_logits(pair),
            functional.normalize(self.query(query), dim=1),
            functional.normalize(self.item(item), dim=1),
        )

    def hidden_states(self, tokens: PairTokens) -> tuple[Tensor, Tensor]:
        """BERT's hidden states float32[B, L, 128], zero at padding, and the pooled `[CLS]` float32[B, 128].

        Equal to the forward pass of `BertModel`, but only attention computes on padding, which is a quarter of a batch
        or more; everything else works on the packed tokens.
        """
        token_index = tokens.attention_mask.flatten().nonzero().squeeze(1)
        types = tokens.token_type_ids + 2 * token_matches(tokens).long()
        positions = torch.arange(tokens.input_ids.shape[1], device=tokens.input_ids.device).expand_as(tokens.input_ids)
        packed: Tensor = self.bert.embeddings(
            *(each.flatten().index_select(0, token_index).unsqueeze(0) for each in (tokens.input_ids, types, positions))
        )[0]
        attention_bias = torch.zeros(tokens.attention_mask.shape, device=packed.device).masked_fill(
            ~tokens.attention_mask, -torch.inf
        )
        bert: Any = self.bert
        for layer in bert.encoder.layer:
            attended = _self_attention(layer.attention.self, packed, token_index, attention_bias)
            packed = layer.attention.output(attended, packed)
            packed = layer.output(layer.intermediate(packed), packed)
        hidden = _pad(packed, token_index, tokens.attention_mask.shape)
        return hidden, bert.pooler(hidden)

    def level_logits(self, pair: Tensor) -> Tensor:
        """float32[B, 4] from representations float32[B, 128] of pairs."""
        logits: Tensor = self.levels(pair)
        return logits


def token_matches(tokens: PairTokens) -> Tensor:
    """bool[B, L]: tokens that the other part has too, among them the closing `[SEP]` of both parts."""
    same = tokens.input_ids[:, :, None] == tokens.input_ids[:, None, :]
    other_part = tokens.token_type_ids[:, :, None] != tokens.token_type_ids[:, None, :]
    found = (same & other_part & tokens.attention_mask[:, None, :]).any(dim=2)
    return found & tokens.attention_mask


def make_encoder(tokenizer: PairTokenizer, seed: int, *, layers: int = _LAYERS) -> RelevanceEncoder:
    """Make an untrained encoder for a vocabulary, in evaluation mode; the weights depend on the seed alone."""
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=_INTERMEDIATE_SIZE,
        max_position_embeddings=tokenizer.max_tokens,
        type_vocab_size=TOKEN_TYPES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        dtype="float32",
    )
    config._attn_implementation = ATTENTION
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RelevanceEncoder(config).eval()


def count_parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def _self_attention(heads: BertSelfAttention, packed: Tensor, token_index: Tensor, attention_bias: Tensor) -> Tensor:
    """BERT's self-attention on packed tokens, float32[T, 128], with one product for all heads.

    packed: float32[T, 128]. token_index: int64[T], the tokens' positions in the flattened [B, L].
    attention_bias: float32[B, L], −∞ at padding.
    """
    parts = (heads.query, heads.key, heads.value)
    weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
    projected = _pad(functional.linear(packed, weight, bias), token_index, attention_bias.shape)
    queries, keys, values = projected.view(*attention_bias.shape, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    scores = queries @ keys.transpose(2, 3) * keys.shape[3] ** -0.5 + attention_bias[:, None, None, :]
    attended: Tensor = (torch.softmax(scores, dim=3) @ values).transpose(1, 2)
    return attended.reshape(attention_bias.numel(), -1).index_select(0, token_index)


def _pad(packed: Tensor, token_index: Tensor, shape: torch.Size) -> Tensor:
    """float32[B, L, any], zero at padding, from packed float32[T, any]."""
    padded = packed.new_zeros(shape.numel(), packed.shape[1])
    return padded.index_copy(0, token_index, packed).view(*shape, -1)


def _masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of a part, float32[B, 128]; hidden: float32[B, L, 128], mask: bool[B, L]."""
    weight = mask.to(hidden.dtype)
    return torch.einsum("bl,blw->bw", weight, hidden) / weight.sum(dim=1, keepdim=True)
