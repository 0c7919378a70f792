"""The events that are mutated: small result pages and their clicks, valid and in order of time."""

import heapq
import random
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

START: Final = 1_700_000_000_000
_PAGE_GAP_MS: Final = 400
"""Mean event time between pages; with the default window some 300 pages are pending."""
_USERS: Final = 3_000
_ITEMS: Final = 500
_QUERIES: Final = ("red shoes", "usb cable", "café", "日本 茶", "", "wireless mouse", "  Red   SHOES ", "😀")
_CLICK_RATE: Final = 0.4
_CLICK_DELAYS_MS: Final = (500, 100_000)

Event = dict[str, Any]


def base_events(rng: random.Random) -> Iterator[Event]:
    """Yield pages and clicks for ever, each a new dict in the canonical form of the contract."""
    now = START
    due: list[tuple[int, int, Event]] = []
    numbers = count()
    while True:
        now += 1 + int(rng.expovariate(1 / _PAGE_GAP_MS))
        while due and due[0][0] <= now:
            yield heapq.heappop(due)[2]
        page = _page(rng, f"r{next(numbers)}", now)
        yield page
        for item in page["items"]:
            if rng.random() < _CLICK_RATE:
                ts = now + rng.randrange(*_CLICK_DELAYS_MS)
                click = {"type": "click", "request_id": page["request_id"], "user_id": page["user_id"]}
                heapq.heappush(due, (ts, next(numbers), click | {"item_id": item["item_id"], "ts": ts}))


def _page(rng: random.Random, request_id: str, ts: int) -> Event:
    items: list[Event] = [
        {
            "item_id": f"i{number}",
            "title": f"title {number % 97}",
            "relevance": rng.randint(1, 4),
            "price": rng.choice((5, 9.99, 120)),
            "category": rng.choice(("shoes", "cables", "日本")),
        }
        for number in rng.sample(range(_ITEMS), rng.randint(1, 4))
    ]
    query = rng.choice((*_QUERIES, f"query {rng.randrange(200)}"))
    page: Event = {
        "type": "impression",
        "request_id": request_id,
        "user_id": f"u{int(rng.paretovariate(1.1)) % _USERS}",
    }
    page |= {"query": query, "ts": ts, "items": items}
    if rng.random() < 0.1:
        page["context"] = {"device": rng.choice(("phone", "tv"))}
    if rng.random() < 0.1:
        page["features"] = {"hour": rng.randrange(24), "tier": rng.choice(("a", "b"))}
    return page
