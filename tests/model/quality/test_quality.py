"""Quality by segment, level, position and time: against sums over pages one by one, and across restarts."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from prectr.model.quality.quality import MAX_BUCKETS, Quality, QualityState
from prectr.model.quality.sketch import QualitySketch
from prectr.state.errors import CheckpointError

MINUTE = 60_000
DAY = 86_400_000


@dataclass(frozen=True)
class Page:
    closes_at: int
    activity: int
    logits: tuple[float, ...]
    labels: tuple[int, ...]
    levels: tuple[int, ...]
    positions: tuple[int, ...]


@st.composite
def drawn_pages(draw: st.DrawFn, span: int = 400 * DAY) -> Page:
    n = draw(st.integers(1, 13))

    def row(of: st.SearchStrategy[int]) -> tuple[int, ...]:
        return tuple(draw(st.lists(of, min_size=n, max_size=n)))

    return Page(
        closes_at=draw(st.integers(0, span)),
        activity=draw(st.integers(0, 12)),
        logits=tuple(z / 4 for z in row(st.integers(-20, 8))),
        labels=row(st.integers(0, 1)),
        levels=row(st.integers(1, 4)),
        positions=row(st.integers(1, 15)),
    )


def simulated(count: int, step: int, seed: int = 0) -> list[Page]:
    rng = np.random.default_rng(seed)
    pages = []
    for i in range(count):
        n = int(rng.integers(1, 15))
        logits = rng.normal(-1.5, 1.2, n)
        labels = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(int)
        pages.append(
            Page(
                closes_at=1_700_000_000_000 + i * step,
                activity=int(rng.integers(0, 20)),
                logits=tuple(logits.tolist()),
                labels=tuple(labels.tolist()),
                levels=tuple(rng.integers(1, 5, n).tolist()),
                positions=tuple(range(1, n + 1)),
            )
        )
    return pages


def feed(quality: Quality, pages: Sequence[Page]) -> None:
    def joined(parts: Iterable[tuple[float, ...]], dtype: str) -> np.ndarray:
        return np.array([value for part in parts for value in part], dtype)

    quality.add_batch(
        joined((page.logits for page in pages), "f8"),
        joined((page.labels for page in pages), "u1"),
        np.cumsum([0, *(len(page.labels) for page in pages)], dtype=np.int64),
        user_activity=np.array([page.activity for page in pages], np.int64),
        levels=joined((page.levels for page in pages), "u1"),
        positions=joined((page.positions for page in pages), "i8"),
        closes_at=np.array([page.closes_at for page in pages], np.int64),
    )


def fed(pages: Sequence[Page], batch: int = 16) -> Quality:
    out = Quality()
    for start in range(0, len(pages), batch):
        feed(out, pages[start : start + batch])
    return out


def wire(quality: Quality) -> bytes:
    return msgspec.msgpack.encode(quality.state())


def restored(quality: Quality) -> Quality:
    return Quality.from_state(msgspec.msgpack.decode(wire(quality), type=QualityState))


def auc(pages: Iterable[tuple[float, int]]) -> float:
    scores, labels = zip(*pages, strict=True)
    return float(roc_auc_score(labels, scores))


def segment_of(activity: int) -> str:
    return "new" if activity < 3 else "low" if activity < 10 else "active"


def test_segments_agree_with_scikit_learn_on_their_pages() -> None:
    pages = simulated(600, 10 * MINUTE)
    segments = fed(pages).segments()
    for name in ("all", "new", "low", "active"):
        mine = [page for page in pages if name in ("all", segment_of(page.activity))]
        mixed = [page for page in mine if 0 < sum(page.labels) < len(page.labels)]
        weights = [len(page.labels) for page in mixed]
        gauc = np.average([roc_auc_score(page.labels, page.logits) for page in mixed], weights=weights)
        sketch = segments[name]
        assert sketch.pages == len(mine)
        assert sketch.clicks == sum(sum(page.labels) for page in mine)
        assert sketch.gauc == pytest.approx(gauc, abs=1e-7)
        flat = [pair for page in mine for pair in zip(page.logits, page.labels, strict=True)]
        assert sketch.impressions == len(flat)
        assert sketch.auc == pytest.approx(auc(flat), abs=5e-4)


def test_levels_and_positions_agree_with_scikit_learn_on_their_impressions() -> None:
    pages = simulated(1500, 10 * MINUTE)
    summary = fed(pages).summary()
    assert list(summary.levels) == ["1", "2", "3", "4"]
    assert list(summary.positions) == [*map(str, range(1, 11)), "11+"]
    flat = [item for page in pages for item in zip(page.logits, page.labels, page.levels, page.positions, strict=True)]
    for name, figures in summary.levels.items():
        mine = [(z, y) for z, y, level, _ in flat if str(level) == name]
        assert (figures.impressions, figures.clicks) == (len(mine), sum(y for _, y in mine))
        assert figures.auc == pytest.approx(auc(mine), abs=2e-4)
    for name, figures in summary.positions.items():
        mine = [(z, y) for z, y, _, at in flat if (str(at) if at <= 10 else "11+") == name]
        assert (figures.impressions, figures.clicks) == (len(mine), sum(y for _, y in mine))
        assert figures.auc == pytest.approx(auc(mine), abs=5e-4)


@settings(max_examples=40)
@given(st.lists(drawn_pages(), max_size=40), st.integers(1, 40), st.integers(1, 40))
def test_batching_and_order_change_nothing_to_the_last_bit(pages: list[Page], one: int, other: int) -> None:
    assert wire(fed(pages, one)) == wire(fed(pages, other)) == wire(fed(pages[::-1], other))


@settings(max_examples=40)
@given(st.lists(drawn_pages(), max_size=30), st.lists(drawn_pages(), max_size=30))
def test_a_restored_state_goes_on_as_if_never_stopped(before: list[Page], after: list[Page]) -> None:
    stopped = restored(fed(before))
    assert wire(stopped) == wire(fed(before))
    for start in range(0, len(after), 7):
        feed(stopped, after[start : start + 7])
    assert wire(stopped) == wire(fed(before + after))
    assert stopped.summary() == fed(before + after).summary()


@settings(max_examples=40)
@given(st.lists(drawn_pages(span=3 * DAY), min_size=1, max_size=60))
def test_timeline_buckets_hold_the_pages_that_close_in_them(pages: list[Page]) -> None:
    timeline = fed(pages).timeline()
    for point in timeline:
        inside = [page for page in pages if point.start <= page.closes_at < point.end]
        assert point.all.pages == len(inside)
        assert point.all.clicks == sum(sum(page.labels) for page in inside)
        by_segment = Counter(segment_of(page.activity) for page in inside)
        assert (point.new.pages, point.low.pages, point.active.pages) == tuple(
            by_segment[name] for name in ("new", "low", "active")
        )
    assert sum(point.all.pages for point in timeline) == len(pages)


@pytest.mark.parametrize(("minutes", "width"), [(100, 1), (128, 1), (129, 2), (300, 4), (5000, 64)])
def test_buckets_double_in_width_once_there_are_more_than_128(minutes: int, width: int) -> None:
    pages = [Page(i * MINUTE, 0, (0.0,), (1,), (4,), (1,)) for i in range(minutes)]
    timeline = fed(pages).timeline()
    assert len(timeline) <= MAX_BUCKETS
    assert {point.end - point.start for point in timeline} == {width * MINUTE}
    assert [point.start for point in timeline] == list(range(0, minutes * MINUTE, width * MINUTE))


def test_timeline_windows_are_sums_of_neighbouring_buckets() -> None:
    pages = simulated(1000, 20 * MINUTE)
    timeline = fed(pages).timeline(max_points=9)
    assert len(timeline) == 9
    assert timeline[0].start <= pages[0].closes_at
    assert timeline[-1].end > pages[-1].closes_at
    for point, following in itertools.pairwise(timeline):
        assert point.end <= following.start
    for point in timeline:
        inside = [page for page in pages if point.start <= page.closes_at < point.end]
        assert point.all == fed(inside).segments()["all"].stats()
        assert point.active == fed(inside).segments()["active"].stats()
        assert len(inside) == pytest.approx(1000 / 9, rel=0.25)


def test_the_summary_has_fewer_points_where_clicks_are_few() -> None:
    few, many = fed(simulated(60, 20 * MINUTE)).summary(), fed(simulated(2000, 20 * MINUTE)).summary()
    assert len(few.timeline) == 4
    assert len(many.timeline) == many.clicks // 400
    assert sum(point.all.pages for point in many.timeline) == many.pages == 2000
    assert (many.first_close, many.last_close) == (1_700_000_000_000, 1_700_000_000_000 + 1999 * 20 * MINUTE)


def test_a_clock_that_jumps_years_takes_one_bucket_and_spoils_no_other() -> None:
    pages = [Page(i * MINUTE, 0, (0.0,), (1,), (4,), (1,)) for i in [*range(100), 20 * 365 * 24 * 60]]
    timeline = fed(pages).timeline()
    assert len(timeline) == 101
    assert timeline[99].end == 100 * MINUTE


def test_second_half_is_the_fewest_last_buckets_with_at_least_half_of_the_pages() -> None:
    pages = simulated(1000, 20 * MINUTE)
    quality = fed(pages)
    sketch, start = quality.second_half()
    assert start is not None
    later = [page for page in pages if page.closes_at >= start]
    expected = QualitySketch.total([fed(later).segments()["all"]])
    assert sketch == expected
    assert len(later) >= 500
    width = quality.timeline()[0].end - quality.timeline()[0].start
    assert len([page for page in later if page.closes_at >= start + width]) < 500
    assert quality.summary().second_half.start == start


def test_the_second_half_of_nothing_is_empty() -> None:
    assert Quality().second_half() == (QualitySketch(), None)
    summary = Quality().summary()
    assert summary.auc is summary.first_close is summary.last_close is None
    assert summary.second_half.start is None
    assert summary.timeline == summary.calibration_curve == []


def test_sketches_handed_out_are_not_touched_by_later_batches() -> None:
    quality = fed(simulated(50, MINUTE))
    segments = quality.segments()
    feed(quality, simulated(16, MINUTE, seed=1))
    assert segments["all"].pages == 50
    assert quality.segments()["all"].pages == 66


def test_an_empty_batch_changes_nothing() -> None:
    quality = Quality()
    feed(quality, [])
    assert wire(quality) == wire(Quality())


def test_counters_of_another_version_or_shape_are_refused() -> None:
    state = fed(simulated(20, MINUTE)).state()
    with pytest.raises(CheckpointError, match="version 7"):
        Quality.from_state(msgspec.structs.replace(state, version=7))
    with pytest.raises(CheckpointError, match="corrupt"):
        Quality.from_state(msgspec.structs.replace(state, splits=state.splits[1:]))
