"""Hand-made result pages and clicks as lines of a log. Times are in milliseconds."""

import json
from collections.abc import Sequence

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WINDOW = 120 * SECOND
LATENESS = 5 * SECOND

T = 1_700_000_000_000
"""The time at which hand-made examples begin."""


def page(
    request_id: str,
    user_id: str,
    ts: int,
    *,
    query: str = "usb cable",
    items: Sequence[str] = ("a", "b"),
    levels: Sequence[int | None] | None = None,
    **extra: object,
) -> bytes:
    """A result page; the first item has level 4 and every other one level 1 unless `levels` says otherwise."""
    item_levels = levels if levels is not None else [4] + [1] * (len(items) - 1)
    shown_items = [
        {"item_id": item, "title": f"title of {item}"} | ({} if level is None else {"relevance": level})
        for item, level in zip(items, item_levels, strict=True)
    ]
    event = {"type": "impression", "request_id": request_id, "user_id": user_id, "query": query, "ts": ts}
    return json.dumps(event | {"items": shown_items} | extra).encode()


def click(request_id: str, user_id: str, ts: int, item_id: str = "a") -> bytes:
    return json.dumps(
        {"type": "click", "request_id": request_id, "user_id": user_id, "item_id": item_id, "ts": ts}
    ).encode()
