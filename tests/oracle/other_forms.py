"""Events of a world in the other forms that are read, with features, other actions and searches without hits."""

import json
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

Event = dict[str, Any]


def in_another_form(rng: random.Random, line: bytes) -> list[bytes]:
    """Return the lines that take the place of one: valid where it was valid."""
    event = json.loads(line)
    changes = [_as_session, _float_time, _iso_time, _nulls]
    if event["type"] == "click":
        changes += [_same_action]
        if rng.random() < 0.2:
            return [line, _encoded(rng, event | {"action": rng.choice(["add_to_cart", "purchase", "Click"])})]
    else:
        changes += [_features, _features, _float_numbers]
        if rng.random() < 0.2:
            empty = event | {"request_id": event["request_id"] + "!", "items": [], "query": None}
            return [_encoded(rng, empty), line]
    for change in rng.sample(changes, rng.randint(1, 3)):
        event = change(rng, event)
    return [_encoded(rng, event)]


def _encoded(rng: random.Random, event: Event) -> bytes:
    return json.dumps(event, ensure_ascii=rng.random() < 0.5).encode()


def _as_session(rng: random.Random, event: Event) -> Event:
    """The key stays the same, whichever field holds it."""
    event = dict(event)
    if "user_id" in event:
        event["session_id"] = event.pop("user_id")
    return event | rng.choice([{}, {"user_id": None}, {"user_id": ""}])


def _float_time(rng: random.Random, event: Event) -> Event:
    return event | {"ts": float(event["ts"])} if isinstance(event["ts"], int) else event


def _iso_time(rng: random.Random, event: Event) -> Event:
    if isinstance(event["ts"], str):
        return event
    zone = rng.choice([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8))])
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(event["ts"]))
    return event | {"ts": moment.astimezone(zone).isoformat(timespec="milliseconds")}


def _nulls(rng: random.Random, event: Event) -> Event:
    if event["type"] == "click":
        return event | {"action": None}
    items = [dict.fromkeys(("title", "price", "features", "position")) | item for item in event["items"]]
    return {"context": None, "features": None} | event | {"items": items}


def _same_action(rng: random.Random, event: Event) -> Event:
    return event | {"action": "click"}


def _features(rng: random.Random, event: Event) -> Event:
    values = [1, 2.5, -0.0, 1e300, True, False, None, "phone", "", "日本", 10**20]
    items = [
        item | {"features": {name: rng.choice(values) for name in rng.sample(["bm25", "stock", "é", ""], 2)}}
        for item in event["items"]
    ]
    return event | {"items": items, "features": {"hour": rng.randrange(24), "device": rng.choice(["phone", None])}}


def _float_numbers(rng: random.Random, event: Event) -> Event:
    whole = ("relevance", "position")
    return event | {
        "items": [
            {name: float(value) if name in whole and value is not None else value for name, value in item.items()}
            for item in event["items"]
        ]
    }
