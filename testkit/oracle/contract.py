"""Decodes a line of the log with the standard library's json and the limits of the contract."""

import json
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

MAX_LINE = 1 << 20
MIN_TS = 946_684_800_000
MAX_TS = 253_402_300_799_999

_INVALID = object()
_ISO = re.compile(r"[2-9]\d{3}-\d\d-\d\dT\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)", re.ASCII)
"""The year, in the time's own zone, is 2000 at the earliest."""


def read_line(line: bytes) -> tuple[str, dict[str, Any] | None]:
    """Return the kind that a line states (impression, click, unreadable), and its known fields if it is valid."""
    if len(line) > MAX_LINE:  # never held as a whole, so its kind is not known
        return "unreadable", None
    return read_event(_parse_json(line))


def read_event(event: object) -> tuple[str, dict[str, Any] | None]:
    """Return the kind that parsed JSON states, and its known fields if it is valid."""
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(event, dict) or kind not in ("impression", "click"):
        return "unreadable", None
    known = _click(event) if kind == "click" else _page(event)
    return kind, known


def normalise(query: str) -> str:
    """Fold case, width and white space of a query."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", query).casefold())
    return " ".join(folded.split())


def murmur2(data: bytes) -> int:
    """Kafka's variant (seed 0x9747b28c), as an unsigned number; checked against the vectors of Kafka's UtilsTest."""
    mask = 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * 0x5BD1E995 & mask
        k = (k ^ k >> 24) * 0x5BD1E995 & mask
        h = (h * 0x5BD1E995 & mask) ^ k
    if len(data) > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & mask
    h = (h ^ h >> 13) * 0x5BD1E995 & mask
    return h ^ h >> 15


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key by Kafka's default partitioner."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def _parse_json(line: bytes) -> object:
    def reject_constant(name: str) -> float:
        raise ValueError(name)

    try:
        return json.loads(line.decode("utf-8"), parse_constant=reject_constant)
    except (ValueError, RecursionError):
        return None


def _page(event: dict[str, Any]) -> dict[str, Any] | None:
    request_id, user_id, ts = _id(event.get("request_id")), _visitor(event), _time(event.get("ts"))
    items, query = event.get("items"), event.get("query", 0)
    features, context = _map(event.get("features"), _feature), _map(event.get("context"), _label)
    if request_id is None or user_id is None or ts is None or features is _INVALID or context is _INVALID:
        return None
    if not isinstance(items, list) or len(items) > 200 or not (query is None or _text(query, 2000)):
        return None
    known = [_item(item, position) for position, item in enumerate(items, 1)]
    if None in known:
        return None
    page = {"request_id": request_id, "user_id": user_id, "query": query or "", "ts": ts}
    return page | {"items": known, "context": context, "features": features}


def _item(item: object, position: int) -> dict[str, Any] | None:
    if not isinstance(item, dict) or (item_id := _id(item.get("item_id"))) is None:
        return None
    level, features = item.get("relevance"), _map(item.get("features"), _feature)
    price, place = item.get("price"), item.get("position")
    valid = (
        features is not _INVALID
        and (item.get("title") is None or _text(item["title"], 2000))
        and (level is None or _integer(level, 1, 4))
        and (price is None or _number(price))
        and (item.get("category") is None or _text(item["category"], 256))
        and (item.get("brand") is None or _text(item["brand"], 256))
        and (place is None or _integer(place, 1, 1_000_000))
    )
    if not valid:
        return None
    known = {name: item.get(name) for name in ("title", "category", "brand")}
    known |= {"item_id": item_id, "features": features, "relevance": None if level is None else int(level)}
    return known | {"price": None if price is None else float(price), "position": (place and int(place)) or position}


def _click(event: dict[str, Any]) -> dict[str, Any] | None:
    ids = {"request_id": _id(event.get("request_id")), "item_id": _id(event.get("item_id"))}
    click = ids | {"user_id": _visitor(event), "ts": _time(event.get("ts"))}
    action = "click" if event.get("action") is None else event["action"]
    if None in click.values() or not (_text(action, 256) and action):
        return None
    return click | {"action": action}


def _visitor(event: dict[str, Any]) -> str | None:
    user = event.get("user_id")
    return _id(event.get("session_id")) if user is None or user == "" else _id(user)


def _id(value: object) -> str | None:
    """Return the id as text, if it is one."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and 1 <= len(value.encode()) <= 256 else None


def _time(value: object) -> int | None:
    """Return the time in ms; of ISO 8601 as the standard library reads it, with a date, a time of day and a zone."""
    if isinstance(value, str):
        # The standard library also reads texts that are not ISO 8601, such as 2023-11-15T07:324+00:00.
        if not _ISO.fullmatch(value):
            return None
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        value = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return int(value) if _integer(value, MIN_TS, MAX_TS) and isinstance(value, int | float) else None


def _text(value: object, max_length: int) -> bool:
    return isinstance(value, str) and len(value) <= max_length


def _integer(value: object, minimum: int, maximum: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return minimum <= value <= maximum and value == int(value)


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return abs(float(value)) != float("inf")
    except OverflowError:
        return False


def _feature(value: object) -> bool:
    return isinstance(value, bool) or _number(value) or _label(value)


def _label(value: object) -> bool:
    return _text(value, 256)


def _map(value: object, valid: Callable[[object], bool]) -> Any:
    """Return a map of names to values without its nulls; None for none, `_INVALID` for anything else."""
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > 64:
        return _INVALID
    if not all(_label(name) and (entry is None or valid(entry)) for name, entry in value.items()):
        return _INVALID
    return {
        name: entry if isinstance(entry, str) else float(entry) for name, entry in value.items() if entry is not None
    }
