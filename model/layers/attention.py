"""Attention over past clicks: per page, a list of any length."""

import math
from typing import Final

import torch
from torch import Tensor

_MAX_SCORE: Final = 8.0
"""Scores are squashed into ± this, so that no exponential overflows and no click takes all the weight."""


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, page_of: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017) of each page over its own clicks.

    Args:
        queries: float32[P, D].
        keys: float32[C, D] of C clicks.
        values: float32[C, V].
        bias: float32[C, heads], added to the scores.
        page_of: int64[C], the page of each click.
        heads: a divisor of D and V.

    Returns:
        float32[P, V]; zero for pages without clicks.
    """
    pages, clicks = len(queries), len(keys)
    width = queries.shape[1] // heads
    queries_by_click = queries.index_select(0, page_of).view(clicks, heads, width)
    scores = (queries_by_click * keys.view(clicks, heads, width)).sum(dim=2) / math.sqrt(width) + bias
    weights = torch.exp(_MAX_SCORE * torch.tanh(scores / _MAX_SCORE))
    totals = weights.new_zeros(pages, heads).index_add(0, page_of, weights)
    attention = weights / totals.index_select(0, page_of)
    weighted_values = attention.unsqueeze(2) * values.view(clicks, heads, values.shape[1] // heads)
    return values.new_zeros(pages, values.shape[1]).index_add(0, page_of, weighted_values.flatten(1))
