"""The most frequent queries of a run."""

from pathlib import Path
from random import Random

import msgspec
import pytest

from prectr.state.aggregates import NO_COUNTS, NO_SUMS, count_levels
from prectr.stream.records import Example
from prectr.stream.sinks.top_queries import TopQueries

_EMPTY = msgspec.Raw(b"\x90")


def example(query: str, levels: bytes, labels: bytes) -> Example:
    return Example(1, "r", "u", 0, query, labels, levels, 0, NO_COUNTS, NO_COUNTS, NO_SUMS, _EMPTY, _EMPTY, _EMPTY)


def drawn(seed: int, pages: int, queries: int) -> list[Example]:
    rng = Random(seed)
    made = []
    for _ in range(pages):
        count = rng.randint(1, 8)
        levels = bytes(rng.randint(1, 4) for _ in range(count))
        name = f"q{min(rng.randrange(queries), rng.randrange(queries))}"
        made.append(example(name, levels, bytes(rng.randint(0, 1) for _ in range(count))))
    return made


def brute_force(examples: list[Example]) -> list[tuple[str, tuple[int, ...]]]:
    totals: dict[str, list[int]] = {}
    for page in examples:
        total = totals.setdefault(page.query, [0] * 8)
        for level, label in zip(page.levels, page.labels, strict=True):
            total[level - 1] += 1
            total[level + 3] += label
    most_first = sorted(totals, key=lambda query: (-sum(totals[query][:4]), query))
    return [(query, tuple(totals[query])) for query in most_first]


def test_counts_every_page_and_orders_by_impressions_then_name() -> None:
    examples = drawn(0, 3000, 300)
    busiest = TopQueries()
    for start in range(0, len(examples), 70):
        busiest.consume(examples[start : start + 70], 0)
    busiest.flush()
    assert busiest.top(1000) == brute_force(examples)
    assert busiest.top(7) == brute_force(examples)[:7]


def test_ties_go_by_name() -> None:
    busiest = TopQueries()
    busiest.consume([example(query, b"\4", b"\0") for query in "cab"], 0)
    assert [query for query, _ in busiest.top(3)] == ["a", "b", "c"]


def test_resumes_from_saved_state(tmp_path: Path) -> None:
    examples = drawn(1, 1000, 200)
    first, second = TopQueries(), TopQueries()
    first.consume(examples[:500], 0)
    first.save(tmp_path)
    second.load(tmp_path)
    second.consume(examples[500:], 0)
    assert second.top(200) == brute_force(examples)


def test_memory_is_bounded_and_busy_queries_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prectr.stream.sinks.top_queries._MAX_QUERIES", 50)
    busiest = TopQueries()
    busy = [example(f"busy {number}", b"\1\2\3\4", b"\0\0\0\1") for number in range(40)]
    for number in range(200):
        rare = [example(f"rare {number}-{more}", b"\1", b"\0") for more in range(5)]
        busiest.consume(busy + rare, 0)
        assert len(busiest._totals) < 100
    assert {query for query, _ in busiest.top(40)} == {page.query for page in busy}
    assert all(
        counts == tuple(200 * count for count in count_levels(b"\1\2\3\4", b"\0\0\0\1"))
        for _, counts in busiest.top(40)
    )
