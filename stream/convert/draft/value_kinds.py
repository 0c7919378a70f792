"""What the values of a column look like: times, days, phrases, ids."""

import datetime
import re
from collections.abc import Sequence
from typing import Any, Final

from prectr.stream.convert.draft.columns import Column, ids_of, normalised
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.times import to_millis

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_LEAST_SHARE_OF_PHRASES: Final = 10
"""One query in ten has several words in any shop; of names of devices, countries or users hardly one does."""


def are_times(values: Sequence[Any]) -> bool:
    """Return whether most values are times, UTC where they have no zone."""
    return sum(_is_time(each, datetime.UTC) for each in values) * 2 > len(values)


def are_phrases(column: Column) -> bool:
    """Return whether values are texts of which some have several words, and none is a time."""
    texts = [each.strip() for each in column.values if isinstance(each, str)]
    if column.array is not None or len(texts) < len(column.values) or are_times(texts):
        return False
    return sum(" " in text for text in texts) * _LEAST_SHARE_OF_PHRASES >= len(texts)


def are_ids_of(column: Column, known: set[str]) -> bool:
    """Return whether all values, or the elements of lists, are ids of items that were shown."""
    found = ids_of(column.values if column.array is None else column.elements)
    return bool(found) and found <= known


def is_day(value: Any) -> bool:
    """Return whether a value is a date without a time of day."""
    if isinstance(value, str):
        return _DAY.match(value.strip()) is not None
    return isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)


def have_no_zone(values: Sequence[Any]) -> bool:
    """Return whether a value is a time that needs a zone."""
    return any(_is_time(each, datetime.UTC) and not _is_time(each, None) for each in values)


def _is_time(value: Any, zone: datetime.tzinfo | None) -> bool:
    try:
        to_millis(value, "auto", zone)
    except Unmappable:
        return False
    return True


def words_of(event: Column) -> set[str]:
    """Return the values of a column of event types, in their normal form."""
    return {normalised(str(each)) for each in event.values}
