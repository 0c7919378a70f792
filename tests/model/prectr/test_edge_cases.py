"""prectr and prectr-v2 on what no log should hold, and on whom they never saw."""

import math

import msgspec
import pytest
import torch

from prectr.stream.events.contract import Item
from prectr.stream.records import Example, decode_page
from tests.kit.models.model_cases import BOTH_MODELS, PAGES, ModelHarness


def _strange(example: Example, title: str | None, price: float | None) -> Example:
    page = decode_page(example.page)
    items = [Item(item.item_id, title, item.relevance, price, None, None, item.position) for item in page.items]
    return msgspec.structs.replace(
        example, page=msgspec.Raw(msgspec.msgpack.encode(msgspec.structs.replace(page, items=items)))
    )


@pytest.mark.parametrize("name", BOTH_MODELS)
@pytest.mark.parametrize(
    ("title", "price"),
    [
        (None, None),
        ("", 0.0),
        ("🎉🎉🎉", math.nan),
        ("x" * 2000, math.inf),
        ("title 1 " * 250, -5.0),
        ("\0\u200b", 1e308),
    ],
)
def test_strange_items_have_sensible_scores_and_can_be_learned_from(
    name: str, title: str | None, price: float | None
) -> None:
    learner = ModelHarness(name).trained()
    pages = [_strange(example, title, price) for example in PAGES]
    scores = learner.score(pages)
    assert bool(torch.isfinite(scores).all())
    assert scores.abs().max().item() < 10
    assert all(bool(torch.isfinite(loss)) for loss in learner.train(pages).losses.values())
    assert bool(torch.isfinite(learner.score(PAGES)).all())


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_a_user_and_a_query_never_seen_have_sensible_scores(name: str) -> None:
    learner = ModelHarness(name).trained()
    nobody = [
        msgspec.structs.replace(
            example,
            user_id="nobody",
            query="neverasked",
            user_activity=0,
            user_stats=(0,) * 8,
            query_stats=(0,) * 8,
            history=msgspec.Raw(msgspec.msgpack.encode([])),
            query_clicks=msgspec.Raw(msgspec.msgpack.encode([])),
        )
        for example in PAGES
    ]
    scores = learner.score(nobody)
    assert bool(torch.isfinite(scores).all())
    assert scores.abs().max().item() < 10
