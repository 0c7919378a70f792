"""Attention over clicks: each page's own list of them, of any length."""

import math

import torch
from torch import Tensor

_MAX_SCORE = 8.0
"""Scores stay within ± this, so that no exponential overflows and no click is all that is heard."""


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, page_of: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017) of each page over its own clicks.

    queries: float32[P, D]. keys: float32[C, D] of C clicks. values: float32[C, V]. bias: float32[C, heads], added to
    the scores. page_of: int64[C], the page of each click. D and V divide by `heads`. Returns float32[P, V]; zero
    where a page has no click.
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
