"""Pairs of a query and a title as tokens: `[CLS] query [SEP] title [SEP]`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from prectr.state.errors import CheckpointError

Pair = tuple[str, str]
"""A query and a title, as text; the title may be empty."""

MAX_TOKENS: Final = 48
"""Maximum tokens of a pair, including the three special ones."""

PAD: Final = "[PAD]"
UNK: Final = "[UNK]"
CLS: Final = "[CLS]"
SEP: Final = "[SEP]"
MASK: Final = "[MASK]"
SPECIAL_TOKENS: Final = (PAD, UNK, CLS, SEP, MASK)
"""In the order of their ids, from 0."""

CACHE_SIZE: Final = 200_000
"""Pairs whose tokens are cached; a pair takes about 200 bytes."""

_MAX_CHARACTERS: Final = 4_000
"""Longer texts are cut before tokenising: 48 tokens are far shorter."""


@dataclass(frozen=True, slots=True)
class PairTokens:
    """A batch of B pairs, padded to the longest of them.

    input_ids: int64[B, L]. token_type_ids: int64[B, L], 0 for the query's part, with `[CLS]` and the first `[SEP]`;
    1 for the title's part, with the last `[SEP]`; neither part is ever empty. attention_mask: bool[B, L], false at
    padding.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    attention_mask: Tensor

    def to(self, device: torch.device) -> "PairTokens":
        """Copy to a device."""
        return PairTokens(
            *(part.to(device, non_blocking=True) for part in (self.input_ids, self.token_type_ids, self.attention_mask))
        )

    def __len__(self) -> int:
        return len(self.input_ids)


class PairTokenizer:
    """Tokenises pairs with a WordPiece vocabulary, with a cache of recent pairs."""

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int = MAX_TOKENS, cache_size: int = CACHE_SIZE) -> None:
        """Wrap a tokenizer; CheckpointError: it lacks a special token."""
        special = [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS]
        if None in special:
            missing = [token for token, token_id in zip(SPECIAL_TOKENS, special, strict=True) if token_id is None]
            raise CheckpointError(f"the tokenizer lacks {', '.join(missing)}: use one made by pretraining")
        self._tokenizer = tokenizer
        self._pad, self._cls, self._sep = special[0], special[2], special[3]
        self._cache_size = cache_size
        self._cache: dict[Pair, tuple[NDArray[np.int32], int]] = {}
        self.max_tokens = max_tokens

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def tokenizer(self) -> Tokenizer:
        """The wrapped tokenizer, as in the file `tokenizer.json`."""
        return self._tokenizer

    def encode(self, pairs: Sequence[Pair]) -> PairTokens:
        """Tokenise pairs, in order.

        A pair longer than `max_tokens` is truncated: the query as far as needed to leave a third of the tokens to the
        title, then the title.
        """
        tokens = self._tokens_of(pairs)
        lengths = np.fromiter((len(ids) for ids, _ in tokens), dtype=np.int64, count=len(tokens))
        query_lengths = np.fromiter((query_length for _, query_length in tokens), dtype=np.int64, count=len(tokens))
        positions = np.arange(lengths.max(initial=0))
        mask = positions < lengths[:, None]
        ids = np.full(mask.shape, self._pad, dtype=np.int64)
        if tokens:
            ids[mask] = np.concatenate([ids for ids, _ in tokens])
        types = (mask & (positions >= query_lengths[:, None])).astype(np.int64)
        return PairTokens(torch.from_numpy(ids), torch.from_numpy(types), torch.from_numpy(mask))

    def lengths(self, pairs: Sequence[Pair]) -> NDArray[np.int64]:
        """Number of tokens of each pair, int64[B]."""
        return np.fromiter((len(ids) for ids, _ in self._tokens_of(pairs)), dtype=np.int64, count=len(pairs))

    def _tokens_of(self, pairs: Sequence[Pair]) -> list[tuple[NDArray[np.int32], int]]:
        """Per pair, its tokens int32[length], and the number of tokens in the query's part."""
        cache = self._cache
        missing = list(dict.fromkeys(pair for pair in pairs if pair not in cache))
        if missing:
            self._tokenize(missing)
        tokens = [cache[pair] for pair in pairs]
        if len(cache) > self._cache_size:
            for oldest in list(islice(cache, len(cache) - self._cache_size)):
                del cache[oldest]
        return tokens

    def _tokenize(self, pairs: list[Pair]) -> None:
        texts = list(dict.fromkeys(text[:_MAX_CHARACTERS] for pair in pairs for text in pair))
        # The tokenizer rejects lone surrogates: they become unknown characters.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encoded = self._tokenizer.encode_batch(clean, add_special_tokens=False)
        ids = {text: encoding.ids for text, encoding in zip(texts, encoded, strict=True)}
        for pair in pairs:
            query, title = ids[pair[0][:_MAX_CHARACTERS]], ids[pair[1][:_MAX_CHARACTERS]]
            budget = self.max_tokens - 3
            query = query[: budget - min(len(title), budget // 3)]
            title = title[: budget - len(query)]
            token_ids = [self._cls, *query, self._sep, *title, self._sep]
            self._cache[pair] = np.array(token_ids, dtype=np.int32), len(query) + 2


def unique_pairs(pairs: Iterable[Pair]) -> tuple[list[Pair], NDArray[np.int64]]:
    """The distinct pairs in order of first appearance, and the index of each pair among them, int64[B]."""
    index_of: dict[Pair, int] = {}
    inverse = [index_of.setdefault(pair, len(index_of)) for pair in pairs]
    return list(index_of), np.array(inverse, dtype=np.int64)
