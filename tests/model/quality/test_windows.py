"""Quality windows: every page is in the window of its close time, however batches, checkpoints and restarts fall."""

import dataclasses
from collections import defaultdict
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.model.quality import windows as module
from prectr.model.quality.scored_pages import ScoredPages
from prectr.model.quality.sketch import QualitySketch, sketch_update
from prectr.model.quality.windows import MAX_BUFFERED_BYTES, QualityWindow, WindowBuffer, WindowBufferState, windows_of

MINUTE = 60_000
FIRST = 28_333_333
"""The number of a minute in 2023."""


def pages(count: int, seed: int, minutes: float) -> ScoredPages:
    """Pages in the one order, spread over so many minutes, of one to eight impressions each."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 9, count)
    impressions = int(sizes.sum())
    logits = random.normal(-2.0, 2.0, impressions).round(1)
    return ScoredPages(
        logits=logits,
        labels=(random.random(impressions) < 1 / (1 + np.exp(-logits))).astype(np.uint8),
        levels=random.integers(1, 5, impressions).astype(np.uint8),
        positions=random.integers(1, 20, impressions),
        category=random.integers(0, 5, impressions).astype(np.uint64),
        page_sizes=sizes,
        user_activity=random.integers(0, 15, count),
        closes_at=np.sort((FIRST * MINUTE + random.random(count) * minutes * MINUTE).astype(np.int64)),
        **{name: random.integers(0, 99, count).astype(np.uint64) for name in ("page_keys", "user_keys", "query_keys")},
    )


def part(whole: ScoredPages, first: int, end: int) -> ScoredPages:
    """Some of the pages."""
    starts = whole.page_starts
    of_page = {"page_sizes", "user_activity", "closes_at", "page_keys", "user_keys", "query_keys"}
    return ScoredPages(
        **{
            field.name: getattr(whole, field.name)[
                slice(first, end) if field.name in of_page else slice(starts[first], starts[end])
            ]
            for field in dataclasses.fields(ScoredPages)
        }
    )


def add_batch(buffer: WindowBuffer, counted: ScoredPages) -> None:
    """Count pages, scored as `Quality` scores them."""
    buffer.add(counted, sketch_update(counted.logits, counted.labels, counted.page_starts))


def one_by_one(whole: ScoredPages) -> dict[int, list[QualitySketch]]:
    """What is expected: page after page into the sketch of its minute and of its user's activity."""
    found: dict[int, list[QualitySketch]] = defaultdict(lambda: [QualitySketch() for _ in range(3)])
    for number, (start, end) in enumerate(pairwise(whole.page_starts.tolist())):
        joined_clicks = int(whole.user_activity[number])
        segment = 0 if joined_clicks < 3 else 1 if joined_clicks < 10 else 2
        sketch = found[int(whole.closes_at[number]) // MINUTE][segment]
        sketch.add(whole.logits[start:end], whole.labels[start:end], np.array([0, end - start]))
    return found


def encoded(sketches: dict[int, list[QualitySketch]]) -> dict[int, QualityWindow]:
    return {
        number: QualityWindow(number, (new.encode(), low.encode(), active.encode()))
        for number, (new, low, active) in sketches.items()
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), minutes=st.sampled_from([0.5, 3.0, 200.0]))
def test_a_quality_window_holds_the_pages_closing_in_its_minute_and_the_bytes_of_their_sketches(
    seed: int, minutes: float
) -> None:
    whole = pages(40, seed, minutes)
    found = windows_of(whole)
    assert {each.sequence: each for each in found} == encoded(one_by_one(whole))
    assert [each.sequence for each in found] == sorted(each.sequence for each in found)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    batches=st.lists(st.integers(1, 59), max_size=12),
    checkpoints=st.sets(st.integers(0, 12)),
    count_batch=st.sampled_from([1, 60, 10_000]),
)
def test_batches_checkpoints_and_restarts_neither_change_nor_lose_windows(
    seed: int, batches: list[int], checkpoints: set[int], count_batch: int
) -> None:
    """At a checkpoint a new process resumes from it, and every window that the checkpoint sealed is published."""
    whole = pages(60, seed, 9.0)
    bounds = [0, *sorted(batches), 60]
    published: dict[int, QualityWindow] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_COUNT_BATCH", count_batch)
        buffer = WindowBuffer()
        for number, (first, end) in enumerate(pairwise(bounds)):
            if first < end:
                add_batch(buffer, part(whole, first, end))
            if number in checkpoints:
                state = _stored(buffer.seal())
                published |= {each.sequence: each for each in buffer.sealed.pending}
                buffer.acknowledge(buffer.sealed.pending[::2])
                buffer = WindowBuffer(state)
        buffer.seal()
        published |= {each.sequence: each for each in buffer.sealed.pending}
    assert published == encoded(one_by_one(whole))


def _stored(state: WindowBufferState) -> WindowBufferState:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=WindowBufferState)


def test_only_checkpointed_windows_are_published() -> None:
    whole = pages(60, 1, 5.0)
    buffer = WindowBuffer()
    add_batch(buffer, part(whole, 0, 30))
    assert buffer.sealed.pending == ()
    sealed = buffer.seal()
    add_batch(buffer, part(whole, 30, 60))
    assert buffer.sealed == sealed


def test_a_window_is_republished_only_when_it_has_more_pages() -> None:
    whole = pages(60, 2, 1.5)
    buffer = WindowBuffer()
    add_batch(buffer, part(whole, 0, 10))
    first = buffer.seal()
    assert [each.sequence for each in first.pending] == [FIRST]
    add_batch(buffer, part(whole, 10, 60))
    again = buffer.seal()
    buffer.acknowledge(first.pending)
    assert buffer.sealed == again
    buffer.acknowledge(again.pending)
    assert buffer.sealed.pending == ()
    assert buffer.sealed.latest == again.latest == again.pending[-1]
    assert buffer.seal() == buffer.sealed


def test_without_publishing_the_buffer_is_bounded_and_drops_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MAX_BUFFERED_BYTES == 192 << 20
    # A few bytes per impression and 1,000 per window: five windows fit, and never six.
    monkeypatch.setattr(module, "MAX_BUFFERED_BYTES", 5_500)
    monkeypatch.setattr(module, "_OVERHEAD_BYTES", 1_000)
    whole = pages(60, 3, 200.0)
    buffer = WindowBuffer()
    for first in range(0, 60, 20):
        add_batch(buffer, part(whole, first, first + 20))
        kept = buffer.seal().pending
    every = sorted(one_by_one(whole))
    assert [each.sequence for each in kept] == every[-5:]
    assert buffer.dropped == len(every) - 5
    # Those that are published make room.
    buffer.acknowledge(kept)
    buffer = WindowBuffer(buffer.seal())
    add_batch(buffer, pages(5, 4, 400.0))
    assert len(buffer.seal().pending) == len(one_by_one(pages(5, 4, 400.0)))
    assert buffer.dropped == 0
