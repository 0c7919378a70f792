"""The records of a frame: decoded, and checked for what the types of their fields do not say.

Whoever may write to a topic may write anything there. What gets past here is what a task of this system could have
written, so nothing downstream fails on it, or stores it, before the place that it came from is known.
"""

import math
from collections.abc import Sequence
from typing import Final

from prectr.state.aggregates import count_levels
from prectr.state.encoding import DAMAGE
from prectr.stream.events.contract import Features, ResultPage
from prectr.stream.ordering.frames import Frame, damaged_frame
from prectr.stream.records import (
    Example,
    JoinedPage,
    decode_example,
    decode_joined_page,
    decode_page,
    decode_query_click,
)

_LABELS: Final = bytes((0, 1))
_LEVELS: Final = bytes((1, 2, 3, 4))


def joined_pages_of(frame: Frame, source_name: str) -> list[JoinedPage]:
    """Decode the pages of a frame of `joined-pages`; what the stage only forwards stays encoded and unchecked.

    Args:
        source_name: where the frame was read (topic, partition, offset), for the error.

    Raises:
        StateError: a record is damaged.
    """
    try:
        pages = [decode_joined_page(record) for record in frame.records]
        for page in pages:
            _check_joined_page(page)
    except DAMAGE as error:
        raise damaged_frame(source_name, error) from error
    return pages


def examples_of(frame: Frame, source_name: str) -> list[Example]:
    """Decode the examples of a frame of `training-examples`, after checking them and their pages.

    The clicks in an example stay encoded and unchecked: decoding them costs more than all the rest, and whoever trains
    on them decodes them (`FeatureEncoder.encode`).

    Args:
        source_name: where the frame was read (topic, partition, offset), for the error.

    Raises:
        StateError: a record is damaged.
    """
    try:
        examples = [decode_example(record) for record in frame.records]
        for example in examples:
            _check_example(example)
    except DAMAGE as error:
        raise damaged_frame(source_name, error) from error
    return examples


def _check_joined_page(page: JoinedPage) -> None:
    _check_items(page)
    if page.counts != count_levels(page.levels, page.labels):
        raise ValueError(f"page {page.request_id}: its counts {page.counts} are not those of its items")
    for click in page.clicks:
        decode_query_click(click)


def _check_example(example: Example) -> None:
    _check_items(example)
    page = decode_page(example.page)
    if len(page.items) != len(example.labels):
        raise ValueError(f"page {example.request_id} has {len(page.items)} items, and {len(example.labels)} labels")
    if (page.request_id, page.user_id, page.ts) != (example.request_id, example.user_id, example.ts):
        raise ValueError(f"the example of page {example.request_id} holds page {page.request_id}")
    _check_numbers(page)


def _check_items(record: JoinedPage | Example) -> None:
    if len(record.labels) != len(record.levels):
        raise ValueError(f"page {record.request_id} has {len(record.labels)} labels, and {len(record.levels)} levels")
    if record.labels.translate(None, _LABELS) or record.levels.translate(None, _LEVELS):
        raise ValueError(f"page {record.request_id} has a label other than 0 and 1, or a level other than 1 to 4")


def _check_numbers(page: ResultPage) -> None:
    """Check that every number of a page is finite, which JSON cannot break, and every item has a position."""
    maps: list[Features | None] = [page.features]
    prices: list[float] = []
    for item in page.items:
        if item.position is None:
            raise ValueError(f"page {page.request_id}: an item has no position")
        if item.price is not None:
            prices.append(item.price)
        maps.append(item.features)
    if not all(map(math.isfinite, [*prices, *_numbers(maps)])):
        raise ValueError(f"page {page.request_id}: a price or a feature is not a finite number")


def _numbers(maps: Sequence[Features | None]) -> list[float]:
    return [value for features in maps if features for value in features.values() if not isinstance(value, str)]
