"""Attention over each page's own clicks against loops, and against torch's where scores are small."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from prectr.model.layers.attention import attend


class Clicks(NamedTuple):
    """What `attend` is given."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    bias: Tensor
    page_of: Tensor
    heads: int


def _clicks(heads: int, *, size: float, counts: tuple[int, ...] = (3, 0, 7, 1), seed: int = 0) -> Clicks:
    random = torch.Generator().manual_seed(seed)
    page_of = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    clicks = len(page_of)
    return Clicks(
        torch.randn(len(counts), 8, generator=random) * size,
        torch.randn(clicks, 8, generator=random),
        torch.randn(clicks, 12, generator=random),
        torch.randn(clicks, heads, generator=random) * size,
        page_of,
        heads,
    )


def _by_loops(of: Clicks) -> np.ndarray:
    """Page by page, head by head, click by click; a score s counts as 8·tanh(s/8)."""
    queries, keys, values, bias = (part.double().numpy() for part in of[:4])
    attended = np.zeros((len(queries), values.shape[1]))
    width, out = queries.shape[1] // of.heads, values.shape[1] // of.heads
    for page in range(len(queries)):
        own = [click for click, of_page in enumerate(of.page_of.tolist()) if of_page == page]
        for head in range(of.heads):
            part, to = slice(head * width, (head + 1) * width), slice(head * out, (head + 1) * out)
            weights = []
            for click in own:
                score = sum(q * k for q, k in zip(queries[page, part], keys[click, part], strict=True))
                score = score / math.sqrt(width) + bias[click, head]
                weights.append(math.exp(8 * math.tanh(score / 8)))
            for weight, click in zip(weights, own, strict=True):
                attended[page, to] += weight / sum(weights) * values[click, to]
    return attended


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("size", [0.1, 1.0, 6.0])
def test_a_page_attends_to_its_clicks_as_plain_loops_do(heads: int, size: float) -> None:
    of = _clicks(heads, size=size)
    assert attend(*of).numpy() == pytest.approx(_by_loops(of), abs=1e-5)


@pytest.mark.parametrize("heads", [1, 2])
def test_small_scores_are_scaled_dot_product_attention(heads: int) -> None:
    of = _clicks(heads, size=0.05)
    attended = attend(*of)
    for page in range(len(of.queries)):
        own = of.page_of == page
        if not own.any():
            continue
        query = of.queries[page].view(1, heads, 1, -1)
        keys, values = (part[own].view(1, int(own.sum()), heads, -1).transpose(1, 2) for part in (of.keys, of.values))
        expected = torch.nn.functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=of.bias[own].T.view(1, heads, 1, -1)
        )
        assert torch.allclose(attended[page], expected.flatten(), atol=1e-4)


def test_a_page_without_clicks_attends_to_nothing() -> None:
    of = _clicks(2, size=1.0)
    assert attend(*of)[1].tolist() == [0.0] * 12
    without_clicks = _clicks(2, size=1.0, counts=(0, 0, 0))
    assert attend(*without_clicks).tolist() == [[0.0] * 12] * 3


def test_a_single_click_has_full_weight_whatever_its_score() -> None:
    for size in (0.0, 1.0, 1e6):
        of = _clicks(2, size=size)
        assert torch.allclose(attend(*of)[3], of.values[-1], atol=1e-6)


def test_large_scores_neither_overflow_nor_saturate() -> None:
    """Scores end at ±8: the loudest click is e¹⁶ times as loud as the softest."""
    bias = torch.tensor([[1e30], [-1e30]], requires_grad=True)
    queries, keys = torch.zeros(1, 2), torch.zeros(2, 2)
    attended = attend(queries, keys, torch.eye(2), bias, torch.zeros(2, dtype=torch.int64), 1)
    attended.sum().backward()  # type: ignore[no-untyped-call]
    assert attended[0].tolist() == pytest.approx([1 / (1 + math.exp(-16)), 1 / (1 + math.exp(16))], rel=1e-4)
    assert bias.grad is not None
    assert bool(torch.isfinite(bias.grad).all())


def test_clicks_in_another_order_say_the_same() -> None:
    of = _clicks(2, size=1.0)
    order = torch.randperm(len(of.keys), generator=torch.Generator().manual_seed(1))
    moved = of._replace(keys=of.keys[order], values=of.values[order], bias=of.bias[order], page_of=of.page_of[order])
    assert torch.allclose(attend(*moved), attend(*of), atol=1e-6)


def test_a_page_does_not_attend_to_the_clicks_of_another() -> None:
    of = _clicks(2, size=1.0)
    others = of.page_of != 2
    louder = of._replace(
        values=torch.where(others[:, None], of.values + 100, of.values), bias=of.bias + others[:, None]
    )
    assert torch.equal(attend(*louder)[2], attend(*of)[2])
    assert not torch.allclose(attend(*louder)[0], attend(*of)[0])


def test_queries_keys_values_and_biases_all_learn() -> None:
    of = _clicks(2, size=1.0)
    leaves = [part.clone().requires_grad_() for part in of[:4]]
    (attend(*leaves, of.page_of, 2) ** 2).sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None
    gradients = [leaf.grad for leaf in leaves]
    # The only click of a page has weight 1: its score gets no gradient; nor does a page without clicks.
    assert gradients[0][[0, 2]].abs().sum(dim=1).min().item() > 1e-4
    assert gradients[0][[1, 3]].abs().max().item() < 1e-6
    assert all(gradient[:-1].abs().sum(dim=1).min().item() > 1e-5 for gradient in gradients[1:])
    assert gradients[2][-1].abs().sum().item() > 0.1
