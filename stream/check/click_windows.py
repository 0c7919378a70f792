"""Clicks that find their page, as a function of the attribution window, as the log is and as it would be sorted.

The rules are those of stage `join` (docs/semantics.md) for the first page of each user and request id: a page that is
reopened after `dedup_retention` is not followed.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from prectr.stream.check.key_sample import SampledClicks, SampledPages

WINDOWS: Final = (10, 30, 60, 120, 300, 900, 3_600, 6 * 3_600, 86_400)
"""Attribution windows in seconds for which clicks are counted."""
SUFFICIENT: Final = 0.99
"""The window proposed finds at least this share of the clicks that the longest one finds."""

Mask = NDArray[np.bool_]


class WindowCount(msgspec.Struct, frozen=True):
    """Clicks joined with one window: with the log as it is, and with the same log sorted by time."""

    window_seconds: float
    joined: int
    joined_if_sorted: int


class ClickReport(msgspec.Struct):
    """What becomes of the clicks. Counts are of the sample; `distinct` is what shares refer to.

    Attributes:
        pages, repeated_pages, conflicting_pages: all; those sent again; those sent again with other content.
        clicks, distinct: all; without those that repeat (user, request id, item).
        without_page: distinct clicks whose page is nowhere in the log.
        of_another_user: of these, how many have the request id of another user's page; None if only a sample is known.
        not_shown: distinct clicks on an item that their page does not show.
        before_page: distinct clicks with a time before their page's.
        median_delay_ms, p95_delay_ms: from page to click; None without any.
        configured: counts with the configured window.
        windows: by window, ascending.
        proposed_window_seconds: the smallest of `windows` that finds enough; None if none finds any click.
    """

    pages: int
    repeated_pages: int
    conflicting_pages: int
    clicks: int
    distinct: int
    without_page: int
    of_another_user: int | None
    not_shown: int
    before_page: int
    median_delay_ms: int | None
    p95_delay_ms: int | None
    configured: WindowCount
    windows: list[WindowCount]
    proposed_window_seconds: float | None


class MatchedClicks(NamedTuple):
    """Clicks on an item of their page, each with the page's arrival. All are arrays of one length; times in ms.

    after: whether the click comes after its page. item: hash of (key, item).
    """

    ts: NDArray[np.int64]
    watermark: NDArray[np.int64]
    page_ts: NDArray[np.int64]
    page_watermark: NDArray[np.int64]
    after: Mask
    item: NDArray[np.uint64]


def joined(clicks: MatchedClicks, window: int) -> int:
    """Return how many labels the clicks make with an attribution window in ms."""
    closes_at = np.maximum(clicks.page_ts + window, clicks.page_watermark + 1)
    page_is_pending = clicks.after & (clicks.watermark < closes_at)
    click_is_waiting = ~clicks.after & (clicks.page_watermark < clicks.ts + window)
    in_time = clicks.ts <= clicks.page_ts + window
    return _count_distinct(clicks.item[(page_is_pending | click_is_waiting) & in_time])


def click_report(
    pages: SampledPages, clicks: SampledClicks, *, window: float, allowed_lateness: float, is_whole: bool
) -> ClickReport:
    """Count what becomes of the clicks of a sample.

    Args:
        window, allowed_lateness: as configured, in seconds.
        is_whole: whether the sample is the whole log.
    """
    first = first_of_each(pages.key, pages.number)
    conflicting = _conflicting(pages, first)
    as_given = match(pages, clicks, first)
    by_time = sorted_by_time(pages, clicks, round(allowed_lateness * 1000))
    as_sorted = match(*by_time, first_of_each(by_time[0].key, by_time[0].number))

    def count(seconds: float) -> WindowCount:
        return WindowCount(seconds, joined(as_given, round(seconds * 1000)), joined(as_sorted, round(seconds * 1000)))

    windows = [count(seconds) for seconds in WINDOWS]
    _, first_clicks = np.unique(clicks.item, return_index=True)
    keys, items = clicks.key[first_clicks], clicks.item[first_clicks]
    has_page = _is_in(keys, pages.key)
    delays = as_sorted.ts - as_sorted.page_ts
    return ClickReport(
        pages=len(pages.key),
        repeated_pages=len(pages.key) - len(first) - conflicting,
        conflicting_pages=conflicting,
        clicks=len(clicks.key),
        distinct=len(items),
        without_page=int((~has_page).sum()),
        of_another_user=int(_is_in(clicks.request[first_clicks][~has_page], pages.request).sum()) if is_whole else None,
        not_shown=int((has_page & ~_is_in(items, _shown(pages, first))).sum()),
        before_page=_count_distinct(as_sorted.item[delays < 0]),
        median_delay_ms=_quantile(delays, 0.5),
        p95_delay_ms=_quantile(delays, 0.95),
        configured=count(window),
        windows=windows,
        proposed_window_seconds=proposed_window(windows),
    )


def proposed_window(windows: Sequence[WindowCount]) -> float | None:
    """Return the smallest window, in seconds, that finds at least 99 % of what the longest one finds."""
    most = windows[-1].joined_if_sorted
    if most == 0:
        return None
    return next(each.window_seconds for each in windows if each.joined_if_sorted >= SUFFICIENT * most)


def first_of_each(key: NDArray[np.uint64], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of the first event of each key by number, in ascending order of the key."""
    order = np.lexsort((number, key))
    is_first = np.ones(len(order), dtype=np.bool_)
    is_first[1:] = key[order][1:] != key[order][:-1]
    return order[is_first]


def match(pages: SampledPages, clicks: SampledClicks, first: NDArray[np.int64]) -> MatchedClicks:
    """Return the clicks on an item of the first page of their key. first: as of `first_of_each`."""
    keys = pages.key[first]
    if len(keys) == 0:
        none = np.empty(0, dtype=np.int64)
        return MatchedClicks(none, none, none, none, none.astype(np.bool_), none.astype(np.uint64))
    place = np.minimum(np.searchsorted(keys, clicks.key), len(keys) - 1)
    found = (keys[place] == clicks.key) & _is_in(clicks.item, _shown(pages, first))
    page = first[place[found]]
    return MatchedClicks(
        clicks.ts[found],
        clicks.watermark[found],
        pages.ts[page],
        pages.watermark[page],
        clicks.number[found] > pages.number[page],
        clicks.item[found],
    )


def sorted_by_time(
    pages: SampledPages, clicks: SampledClicks, allowed_lateness: int
) -> tuple[SampledPages, SampledClicks]:
    """Return the events as they would come if the log were sorted by time, equal times in the order that it has.

    The watermark is then each event's own time less `allowed_lateness` (ms).
    """
    order = np.lexsort((np.concatenate([pages.number, clicks.number]), np.concatenate([pages.ts, clicks.ts])))
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    return (
        pages._replace(number=number[: len(pages.ts)], watermark=pages.ts - allowed_lateness),
        clicks._replace(number=number[len(pages.ts) :], watermark=clicks.ts - allowed_lateness),
    )


def _shown(pages: SampledPages, first: NDArray[np.int64]) -> NDArray[np.uint64]:
    is_first = np.zeros(len(pages.key), dtype=np.bool_)
    is_first[first] = True
    return pages.shown[np.repeat(is_first, pages.item_count)]


def _is_in(values: NDArray[np.uint64], others: NDArray[np.uint64]) -> Mask:
    """Return which values are among others; ten times as fast as numpy's own on these hashes."""
    if len(others) == 0:
        return np.zeros(len(values), dtype=np.bool_)
    ordered = np.sort(others)
    found: Mask = ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values
    return found


def _count_distinct(values: NDArray[np.uint64]) -> int:
    ordered = np.sort(values)
    return min(len(ordered), 1) + int((ordered[1:] != ordered[:-1]).sum())


def _conflicting(pages: SampledPages, first: NDArray[np.int64]) -> int:
    if len(first) == 0:
        return 0
    own_first = first[np.searchsorted(pages.key[first], pages.key)]
    return int((pages.content != pages.content[own_first]).sum())


def _quantile(values: NDArray[np.int64], share: float) -> int | None:
    return int(np.quantile(values, share, method="inverted_cdf")) if len(values) else None
