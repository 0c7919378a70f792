"""The producer of a drill: `python -m tests.faults.drill.producer BOOTSTRAP MODE`, until it is killed.

Pages and clicks of a few hundred users, a few dozen a second, of the time of day.
"""

import json
import random
import sys
import time
import zlib
from collections import deque
from typing import Any

from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics

_PAGES_PER_SECOND = 20
_USERS = 300
_QUERIES = [
    f"{thing} {part}" for thing in ("usb", "lamp", "bike", "desk") for part in ("cable", "stand", "case", "kit")
]


def main() -> None:
    """Produce, in one of the modes: well, rejected, misplaced, orphans."""
    bootstrap, mode = sys.argv[1:]
    producer = Connection(bootstrap, connect_timeout=60).producer()
    topic = Topics("").events
    partitions = len(producer.partitions_for(topic))
    rng = random.Random(time.time_ns())
    clicks: deque[tuple[float, dict[str, Any]]] = deque()
    number = 0
    while True:
        number += 1
        user, now = f"u{rng.randrange(_USERS)}", round(time.time() * 1000)
        page = _page(rng, f"r{now}-{number}", user, now)
        events = [page]
        if rng.random() < 0.3:
            item = rng.choice(page["items"])["item_id"]
            request = page["request_id"] if mode != "orphans" else f"other-{number}"
            click = {"type": "click", "request_id": request, "user_id": user, "item_id": item}
            clicks.append((time.time() + rng.uniform(1, 5), click))
        while clicks and clicks[0][0] <= time.time():
            events.append({**clicks.popleft()[1], "ts": round(time.time() * 1000)})
        for event in events:
            partition = partitions_of([event["user_id"]], partitions)[0]
            if mode == "misplaced" and event["type"] == "click":
                partition = zlib.crc32(event["user_id"].encode()) % partitions
            value = {"schema": "v2", "payload": event} if mode == "rejected" else event
            producer.send(topic, json.dumps(value).encode(), key=event["user_id"].encode(), partition=partition)
        time.sleep(1 / _PAGES_PER_SECOND)


def _page(rng: random.Random, request: str, user: str, now: int) -> dict[str, Any]:
    query = rng.choice(_QUERIES)
    items = [
        {
            "item_id": f"i{rng.randrange(500)}",
            "title": f"{query} {rng.randrange(9)}",
            "relevance": rng.randint(1, 4),
            "price": rng.uniform(5, 50),
            "category": "c",
            "brand": "b",
        }
        for _ in range(8)
    ]
    items = list({item["item_id"]: item for item in items}.values())
    return {"type": "impression", "request_id": request, "user_id": user, "query": query, "ts": now, "items": items}


if __name__ == "__main__":
    main()
