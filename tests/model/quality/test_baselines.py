"""Baselines of a log, and lost clicks: against what is counted page by page in plain Python."""

import math
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from prectr.model.features.hashing import hash_text
from prectr.model.quality.baselines import LOGGED_ORDER, POPULARITY, POSITION, Baselines
from prectr.model.quality.quality import Quality
from prectr.model.quality.query_losses import MIN_WORST_PAGES, QueryLosses, page_losses
from prectr.model.quality.scored_pages import ScoredPages
from prectr.stream.records import Example

START = 1_767_225_600_000
ZEROS = (0,) * 8
EMPTY_LIST = msgspec.Raw(msgspec.msgpack.encode([]))


def log(count: int, seed: int = 0) -> list[Example]:
    """Pages of 1 to 6 items, some of them shuffled, clicked by position and item."""
    random = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        items = random.choice(30, int(random.integers(1, 7)), replace=False).tolist()
        labels = [int(random.random() < 0.6 / place * (item % 3) / 2) for place, item in enumerate(items, 1)]
        page = {
            "type": "impression",
            "request_id": f"r{number}",
            "user_id": f"u{number % 17}",
            "query": "q",
            "ts": START,
            "items": [{"item_id": f"i{item}", "position": place} for place, item in enumerate(items, 1)],
        }
        examples.append(
            Example(
                closes_at=START + number * 1000,
                request_id=f"r{number}",
                user_id=f"u{number % 17}",
                ts=START,
                query=f"q{number % 5}",
                labels=bytes(labels),
                levels=bytes([1] * len(items)),
                user_activity=0,
                user_stats=ZEROS,
                query_stats=ZEROS,
                query_decayed=(),
                history=EMPTY_LIST,
                query_clicks=EMPTY_LIST,
                page=msgspec.Raw(msgspec.msgpack.encode(page)),
            )
        )
    return examples


def items_of(example: Example) -> list[tuple[str, int]]:
    return [(item["item_id"], item["position"]) for item in msgspec.msgpack.decode(example.page)["items"]]


def one_by_one(examples: list[Example], kind: int) -> list[float]:
    """The smoothed rate of each impression's item (kind 0) or position (kind 1) before its page."""
    shown, clicked = Counter[object](), Counter[object]()
    rates = []
    for example in examples:
        keys = [item[kind] for item in items_of(example)]
        everything = (clicked.total() + 20 * 0.1) / (shown.total() + 20)
        rates += [(clicked[key] + 20 * everything) / (shown[key] + 20) for key in keys]
        for key, label in zip(keys, example.labels, strict=True):
            shown[key] += 1
            clicked[key] += label
    return rates


@pytest.mark.parametrize(("name", "kind"), [(POPULARITY, 0), (POSITION, 1)])
def test_rates_are_those_before_the_page(name: str, kind: int) -> None:
    examples = log(1_300)
    baselines = Baselines()
    baselines.consume(examples, START)
    baselines.flush()
    rates = np.array(one_by_one(examples, kind))
    labels = np.frombuffer(b"".join(example.labels for example in examples), np.uint8)
    total = baselines.quality[name].segments()["all"]
    assert total.pages == 1_300
    assert total.auc == pytest.approx(roc_auc_score(labels, rates), abs=2e-3)
    expected = -np.where(labels == 1, np.log(rates), np.log1p(-rates))
    assert total.log_loss == pytest.approx(expected.mean(), abs=1e-8)


def test_logged_order_ranks_higher_places_first() -> None:
    examples = log(400)
    baselines = Baselines()
    baselines.consume(examples, START)
    baselines.flush()
    labels = np.concatenate([np.frombuffer(example.labels, np.uint8) for example in examples])
    places = np.concatenate([np.arange(1, len(example.labels) + 1) for example in examples])
    assert baselines.quality[LOGGED_ORDER].segments()["all"].auc == pytest.approx(roc_auc_score(labels, -places))


def test_baselines_resume_to_the_same_bytes_wherever_they_stop(tmp_path: Path) -> None:
    examples = log(1_200, 3)
    whole, first, second = Baselines(), Baselines(), Baselines()
    whole.consume(examples, START)
    first.consume(examples[:333], START)
    for name in ("whole", "first", "second"):
        (tmp_path / name).mkdir()
    first.save(tmp_path / "first")
    second.load(tmp_path / "first")
    for start in range(333, 1_200, 100):
        second.consume(examples[start : start + 100][: 1_200 - start], START)
    whole.save(tmp_path / "whole")
    second.save(tmp_path / "second")
    assert (tmp_path / "whole" / "baselines.msgpack").read_bytes() == (
        tmp_path / "second" / "baselines.msgpack"
    ).read_bytes()


def scored(rows: list[tuple[str, list[float], list[int]]]) -> tuple[ScoredPages, list[Example]]:
    """Pages of (query, scores, labels)."""
    examples = [
        msgspec.structs.replace(log(1)[0], query=query, labels=bytes(labels), request_id=f"r{number}")
        for number, (query, _, labels) in enumerate(rows)
    ]
    impressions = sum(len(labels) for _, _, labels in rows)
    pages = ScoredPages(
        logits=np.array([score for _, scores, _ in rows for score in scores]),
        labels=np.array([label for _, _, labels in rows for label in labels], np.uint8),
        levels=np.ones(impressions, np.uint8),
        positions=np.ones(impressions, np.int64),
        category=np.zeros(impressions, np.uint64),
        page_sizes=np.array([len(labels) for _, _, labels in rows]),
        user_activity=np.zeros(len(rows), np.int64),
        closes_at=np.full(len(rows), START),
        page_keys=np.arange(len(rows)).astype(np.uint64),
        user_keys=np.zeros(len(rows), np.uint64),
        query_keys=np.array([hash_text(query) for query, _, _ in rows], np.uint64),
    )
    return pages, examples


def test_a_page_loses_its_ideal_dcg_less_its_dcg() -> None:
    pages, _ = scored(
        [
            ("a", [1.0, 3.0, 2.0], [1, 0, 0]),
            ("a", [3.0, 2.0, 1.0], [1, 1, 0]),
            ("b", [1.0, 1.0], [1, 0]),
            ("b", [5.0], [0]),
        ]
    )
    assert page_losses(pages) == pytest.approx([1 - 1 / 2, 0.0, 1 - 1 / math.log2(3), 0.0])


def test_queries_are_ranked_by_what_they_lose_and_by_their_auc() -> None:
    rows = [("lost", [1.0, 2.0, 3.0], [1, 0, 0])] * 30 + [("fine", [3.0, 2.0, 1.0], [1, 0, 0])] * 40
    rows += [("rare", [0.0, 1.0], [1, 0])] * (MIN_WORST_PAGES - 1)
    losses = QueryLosses()
    pages, examples = scored(rows)
    losses.add(pages, Quality().add_pages(pages), examples[::-1])
    assert [(each.query, each.pages, each.clicks) for each in losses.most_lost(9)] == [
        ("lost", 30, 30),
        ("rare", 19, 19),
    ]
    assert losses.most_lost(1)[0].lost == pytest.approx(30 * (1 - 1 / 2), abs=1e-5)
    assert [(each.query, each.page_auc) for each in losses.worst(9)] == [("lost", 0.0), ("fine", 1.0)]
    again = QueryLosses(losses.state())
    assert again.most_lost(9) == losses.most_lost(9)


def test_with_more_queries_than_memory_allows_the_worst_stay() -> None:
    losses = QueryLosses()
    rows = [("hot", [0.0, 1.0], [1, 0])] * 5 + [(f"q{number}", [1.0, 0.0], [1, 0]) for number in range(5_000)]
    for _ in range(2):
        pages, examples = scored(rows)
        losses.add(pages, Quality().add_pages(pages), examples)
        rows = [(f"{query}'", *rest) if query != "hot" else (query, *rest) for query, *rest in rows]
    assert len(losses.state()) < 8_192
    assert losses.most_lost(3)[0].pages == 10
