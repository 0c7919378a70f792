"""Quality by stretches: every page in the minute of its close, the same however batches, cuts and restarts fall."""

import dataclasses
from collections import defaultdict
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.model.quality import windows as module
from prectr.model.quality.scored_pages import Measured
from prectr.model.quality.sketch import QualitySketch, score
from prectr.model.quality.windows import MOST_WAITING, Stretch, Stretches, StretchesState, stretches_of

MINUTE = 60_000
FIRST = 28_333_333
"""The number of a minute in 2023."""


def pages(count: int, seed: int, minutes: float) -> Measured:
    """Pages in the one order, spread over so many minutes, of one to eight impressions each."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 9, count)
    impressions = int(sizes.sum())
    logits = random.normal(-2.0, 2.0, impressions).round(1)
    return Measured(
        logits=logits,
        labels=(random.random(impressions) < 1 / (1 + np.exp(-logits))).astype(np.uint8),
        levels=random.integers(1, 5, impressions).astype(np.uint8),
        positions=random.integers(1, 20, impressions),
        category=random.integers(0, 5, impressions).astype(np.uint64),
        sizes=sizes,
        activity=random.integers(0, 15, count),
        closes_at=np.sort((FIRST * MINUTE + random.random(count) * minutes * MINUTE).astype(np.int64)),
    )


def part(whole: Measured, first: int, end: int) -> Measured:
    """Some of the pages."""
    starts = whole.page_starts
    of_page = {"sizes", "activity", "closes_at"}
    return Measured(
        **{
            field.name: getattr(whole, field.name)[
                slice(first, end) if field.name in of_page else slice(starts[first], starts[end])
            ]
            for field in dataclasses.fields(Measured)
        }
    )


def add(stretches: Stretches, counted: Measured) -> None:
    """Count pages, scored as `Quality` scores them."""
    stretches.add(counted, score(counted.logits, counted.labels, counted.page_starts))


def one_by_one(whole: Measured) -> dict[int, list[QualitySketch]]:
    """What is expected: page after page into the sketch of its minute and of its user's activity."""
    found: dict[int, list[QualitySketch]] = defaultdict(lambda: [QualitySketch() for _ in range(3)])
    for number, (start, end) in enumerate(pairwise(whole.page_starts.tolist())):
        joined_clicks = int(whole.activity[number])
        segment = 0 if joined_clicks < 3 else 1 if joined_clicks < 10 else 2
        sketch = found[int(whole.closes_at[number]) // MINUTE][segment]
        sketch.add(whole.logits[start:end], whole.labels[start:end], np.array([0, end - start]))
    return found


def encoded(sketches: dict[int, list[QualitySketch]]) -> dict[int, Stretch]:
    return {
        number: Stretch(number, (new.encode(), low.encode(), active.encode()))
        for number, (new, low, active) in sketches.items()
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), minutes=st.sampled_from([0.5, 3.0, 200.0]))
def test_a_stretch_holds_the_pages_that_close_in_its_minute_and_has_the_bytes_of_their_sketches(
    seed: int, minutes: float
) -> None:
    whole = pages(40, seed, minutes)
    found = stretches_of(whole)
    assert {each.sequence: each for each in found} == encoded(one_by_one(whole))
    assert [each.sequence for each in found] == sorted(each.sequence for each in found)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    batches=st.lists(st.integers(1, 59), max_size=12),
    cuts=st.sets(st.integers(0, 12)),
    together=st.sampled_from([1, 60, 10_000]),
)
def test_batches_cuts_and_restarts_change_no_stretch_and_lose_none(
    seed: int, batches: list[int], cuts: set[int], together: int
) -> None:
    """At a cut, a new process goes on from what the cut holds, and what was published is whatever the cut told."""
    whole = pages(60, seed, 9.0)
    places = [0, *sorted(batches), 60]
    published: dict[int, Stretch] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TOGETHER", together)
        stretches = Stretches()
        for number, (first, end) in enumerate(pairwise(places)):
            if first < end:
                add(stretches, part(whole, first, end))
            if number in cuts:
                state = _stored(stretches.settle())
                published |= {each.sequence: each for each in stretches.settled.waiting}
                stretches.published(stretches.settled.waiting[::2])
                stretches = Stretches(state)
        stretches.settle()
        published |= {each.sequence: each for each in stretches.settled.waiting}
    assert published == encoded(one_by_one(whole))


def _stored(state: StretchesState) -> StretchesState:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=StretchesState)


def test_what_is_not_in_a_checkpoint_yet_is_not_published() -> None:
    whole = pages(60, 1, 5.0)
    stretches = Stretches()
    add(stretches, part(whole, 0, 30))
    assert stretches.settled.waiting == ()
    settled = stretches.settle()
    add(stretches, part(whole, 30, 60))
    assert stretches.settled == settled


def test_what_is_published_is_not_published_again_unless_it_has_got_more_pages() -> None:
    whole = pages(60, 2, 1.5)
    stretches = Stretches()
    add(stretches, part(whole, 0, 10))
    first = stretches.settle()
    assert [each.sequence for each in first.waiting] == [FIRST]
    add(stretches, part(whole, 10, 60))
    again = stretches.settle()
    stretches.published(first.waiting)
    assert stretches.settled == again
    stretches.published(again.waiting)
    assert stretches.settled.waiting == ()
    assert stretches.settled.newest == again.newest == again.waiting[-1]
    assert stretches.settle() == stretches.settled


def test_a_process_that_publishes_nothing_holds_no_more_than_it_may_and_counts_what_it_drops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MOST_WAITING == 192 << 20
    # Some bytes of a few impressions, and 800 beside: five stretches fit, and never six.
    monkeypatch.setattr(module, "MOST_WAITING", 5_500)
    monkeypatch.setattr(module, "_BESIDE", 1_000)
    whole = pages(60, 3, 200.0)
    stretches = Stretches()
    for first in range(0, 60, 20):
        add(stretches, part(whole, first, first + 20))
        kept = stretches.settle().waiting
    every = sorted(one_by_one(whole))
    assert [each.sequence for each in kept] == every[-5:]
    assert stretches.dropped == len(every) - 5
    # Those that are published make room.
    stretches.published(kept)
    stretches = Stretches(stretches.settle())
    add(stretches, pages(5, 4, 400.0))
    assert len(stretches.settle().waiting) == len(one_by_one(pages(5, 4, 400.0)))
    assert stretches.dropped == 0
