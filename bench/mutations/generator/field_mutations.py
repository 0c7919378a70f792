"""Mutations of an event's fields: the productions of the grammar that keep it an object."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from bench.mutations.generator.base_events import Event

FieldMutation = Callable[[random.Random, Event], Event]
Path = tuple[str | int, ...]

HOUR: Final = 3_600_000
_UNUSUAL_TEXTS: Final = (
    "",
    " ",
    "\x00",
    "\ud800",
    "\udfff\ud800",
    "\ufeff",
    "\u2028",
    "😀",
    "e\u0301",
    "\x7f",
    "ÿ" * 128,
)
_NUMBERS: Final = (
    *(0, -1, 1, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, 10**30, -(10**30), 10**400, 10**4000),
    *(-0.0, 0.1, 1e308, 5e-324, 4.0, float("nan"), float("inf"), float("-inf")),
)
_OTHER_TYPES: Final[tuple[Any, ...]] = (None, True, False, 7, 7.5, "7", "", [], {}, [7], [[]], {"a": 1}, [None], [{}])
_TIMES: Final = (
    *(0, -1, 946_684_799_999, 946_684_800_000, 253_402_300_799_999, 253_402_300_800_000),
    *(2**63 - 1, 2**63, 2**64, -(2**63), 1e13, 1.5, 1e400, True, None, "now", "", "2023-11-14", "24:00"),
)
_MISSPELT: Final = ("userId", "user_ID", "requestid", "itemid", "timestamp", "Type", "ts ", "items\x00", "query_")


def paths(event: Event) -> list[Path]:
    """Every place in an event that holds a value, of arrays the entries too."""
    found: list[Path] = []

    def walk(value: object, path: Path) -> None:
        inner: Sequence[tuple[str | int, object]] = ()
        if isinstance(value, dict):
            inner = list(value.items())
        elif isinstance(value, list):
            inner = list(enumerate(value))
        for name, child in inner:
            found.append((*path, name))
            walk(child, (*path, name))

    walk(event, ())
    return found


def replace_at(event: Event, path: Path, value: object) -> Event:
    """A copy of an event with another value at a place that is there."""

    def replace(parent: Any, rest: Path) -> Any:
        if not rest:
            return value
        copied = parent.copy()
        copied[rest[0]] = replace(parent[rest[0]], rest[1:])
        return copied

    replaced: Event = replace(event, path)
    return replaced


def _type(rng: random.Random, event: Event) -> Event:
    return replace_at(event, rng.choice(paths(event)), rng.choice(_OTHER_TYPES))


def _number(rng: random.Random, event: Event) -> Event:
    return replace_at(event, rng.choice(paths(event)), rng.choice(_NUMBERS))


def _text(rng: random.Random, event: Event) -> Event:
    text = rng.choice(_UNUSUAL_TEXTS)
    path = rng.choice(paths(event))
    return replace_at(event, path, text if rng.random() < 0.5 else f"{text}{rng.randrange(1000)}{text}")


def _time_unit(rng: random.Random, event: Event) -> Event:
    if not isinstance(ts := event.get("ts"), int) or abs(ts) > 2**63:
        return event
    return event | {
        "ts": rng.choice((ts // 1000, ts * 1000, ts * 10**6, ts // 86_400_000, ts / 1000, float(ts), str(ts)))
    }


def _time_text(rng: random.Random, event: Event) -> Event:
    if not isinstance(ts := event.get("ts"), int) or not 0 <= ts < 253_402_300_000_000:
        return event
    zone = rng.choice((UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8)), None))
    moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ts)).astimezone(zone or UTC)
    return event | {"ts": (moment if zone else moment.replace(tzinfo=None)).isoformat(timespec="milliseconds")}


def _time_value(rng: random.Random, event: Event) -> Event:
    return event | {"ts": rng.choice(_TIMES)}


def _clock(rng: random.Random, event: Event) -> Event:
    if not isinstance(ts := event.get("ts"), int):
        return event
    ahead = rng.choice((1_000, 600_000, HOUR - 1, HOUR, HOUR + 1, 26 * HOUR, 400 * 24 * HOUR, 90_000 * 24 * HOUR))
    return event | {"ts": ts + ahead * rng.choice((1, -1, -1))}


def _id(rng: random.Random, event: Event) -> Event:
    name = rng.choice(
        [name for name in ("request_id", "user_id", "item_id", "session_id") if name in event] or ["user_id"]
    )
    ids = (
        "",
        "x" * 256,
        "x" * 257,
        "é" * 128,
        "é" * 129,
        "😀" * 64,
        "\x00",
        " ",
        7,
        7.0,
        2**53 + 2.0,
        -0.0,
        "7",
        ["u1"],
    )
    return event | {name: rng.choice(ids)}


def _swapped_ids(rng: random.Random, event: Event) -> Event:
    names = [name for name in ("request_id", "user_id", "item_id", "query") if name in event]
    if len(names) < 2:
        return event
    one, other = rng.sample(names, 2)
    return event | {one: event[other], other: event[one]}


def _session(rng: random.Random, event: Event) -> Event:
    renamed = {("session_id" if name == "user_id" else name): value for name, value in event.items()}
    return renamed | rng.choice(({}, {"user_id": None}, {"user_id": ""}, {"user_id": 0}))


def _missing_field(rng: random.Random, event: Event) -> Event:
    dropped = rng.choice(list(event) or ["type"])
    return {name: value for name, value in event.items() if name != dropped}


def _misspelt_field(rng: random.Random, event: Event) -> Event:
    renamed = rng.choice(list(event) or ["type"])
    return {(rng.choice(_MISSPELT) if name == renamed else name): value for name, value in event.items()}


def _unknown_field(rng: random.Random, event: Event) -> Event:
    values: tuple[Any, ...] = (
        None,
        1,
        "x",
        [1, {"items": []}],
        {"type": "click"},
        10**30,
        float("nan"),
        "\ud800",
        {"": {"": {}}},
    )
    return event | {rng.choice(("extra", "", "\x00", "Type", "éé", "x" * 3000)): rng.choice(values)}


def _event_type(rng: random.Random, event: Event) -> Event:
    return event | {"type": rng.choice(("click", "impression", "purchase", "Click", "", None, 1, ["click"], {}))}


def _action(rng: random.Random, event: Event) -> Event:
    return event | {"action": rng.choice((None, "click", "purchase", "Click", "", "a" * 256, "a" * 257, 1, [], "\x00"))}


def _limits(rng: random.Random, event: Event) -> Event:
    """A size on either side of a limit of the contract: items, title, query, category, features, context."""
    item = (event.get("items") or [{"item_id": "i1"}])[0] if isinstance(event.get("items"), list) else {"item_id": "i1"}
    over = rng.randrange(2)
    names = {f"n{number}": number for number in range(64 + over)}
    choices: tuple[Event, ...] = (
        {"items": [item] * (200 + over)},
        {"query": "q" * (2000 + over)},
        {"query": "😀" * (2000 + over)},
        {"features": names},
        {"features": {"n" * (256 + over): 1}},
        {"context": dict.fromkeys(names, "v")},
        {"context": {"a": "v" * (256 + over)}},
        {"items": []},
    )
    if isinstance(item, dict):
        choices += (
            {"items": [item | {"title": "t" * (2000 + over)}]},
            {"items": [item | {"category": "c" * (256 + over)}]},
        )
        choices += ({"items": [item | {"position": 1_000_000 + over}]}, {"items": [item, item]})
    return event | rng.choice(choices)


def _feature(rng: random.Random, event: Event) -> Event:
    value = rng.choice((*_NUMBERS, *_UNUSUAL_TEXTS, *_OTHER_TYPES))
    features = {rng.choice(("hour", "tier", "", "\x00", f"new{rng.randrange(5000)}")): value}
    if isinstance(event.get("items"), list) and event["items"] and rng.random() < 0.5:
        return event | {
            "items": [{**item, "features": features} if isinstance(item, dict) else item for item in event["items"]]
        }
    return event | {rng.choice(("features", "features", "context")): features}


FIELD_MUTATIONS: Final[dict[str, FieldMutation]] = {
    "type of a value": _type,
    "number": _number,
    "text": _text,
    "unit of the time": _time_unit,
    "ISO 8601 time": _time_text,
    "time out of range": _time_value,
    "clock ahead or behind": _clock,
    "id": _id,
    "swapped ids": _swapped_ids,
    "session instead of user": _session,
    "missing field": _missing_field,
    "misspelt field": _misspelt_field,
    "unknown field": _unknown_field,
    "event type": _event_type,
    "action": _action,
    "limit of a size": _limits,
    "custom feature": _feature,
}
