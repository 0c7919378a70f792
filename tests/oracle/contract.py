"""Decodes a line of the log with the standard library's json and the limits of the contract."""

import json
import unicodedata
from typing import Any

MAX_LINE = 1 << 20
MAX_TS = 253_402_300_799_999
CLICK_IDS = ("request_id", "user_id", "item_id")
PAGE_IDS = ("request_id", "user_id")


def read_line(line: bytes) -> tuple[str, dict[str, Any] | None]:
    """Return the kind that a line states (impression, click, unreadable), and its known fields if it is valid."""
    if len(line) > MAX_LINE:  # never held as a whole, so its kind is not known
        return "unreadable", None
    event = _parse_json(line)
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(event, dict) or kind not in ("impression", "click"):
        return "unreadable", None
    known = _click(event) if kind == "click" else _page(event)
    return kind, known


def normalise(query: str) -> str:
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
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def _parse_json(line: bytes) -> object:
    def reject_constant(name: str) -> float:
        raise ValueError(name)

    try:
        return json.loads(line.decode("utf-8"), parse_constant=reject_constant)
    except (ValueError, RecursionError):
        return None


def _page(event: dict[str, Any]) -> dict[str, Any] | None:
    items = event.get("items")
    context = event.get("context")
    valid = (
        all(_id(event.get(name)) for name in PAGE_IDS)
        and _text(event.get("query"), 2000)
        and _integer(event.get("ts"), 0, MAX_TS)
        and (context is None or _context(context))
        and isinstance(items, list)
        and 1 <= len(items) <= 200
        and all(_item_keeps_contract(item) for item in items)
    )
    if not valid or not isinstance(items, list):
        return None
    page: dict[str, Any] = {name: event[name] for name in ("request_id", "user_id", "query", "ts")}
    page["context"] = context
    page["items"] = [_item(item, position) for position, item in enumerate(items, 1)]
    return page


def _item(item: dict[str, Any], position: int) -> dict[str, Any]:
    known = {name: item.get(name) for name in ("item_id", "title", "relevance", "category", "brand")}
    known["price"] = None if item.get("price") is None else float(item["price"])
    known["position"] = position if item.get("position") is None else item["position"]
    return known


def _item_keeps_contract(item: object) -> bool:
    return (
        isinstance(item, dict)
        and _id(item.get("item_id"))
        and (item.get("title") is None or _text(item["title"], 2000))
        and (item.get("relevance") is None or _integer(item["relevance"], 1, 4))
        and (item.get("price") is None or _number(item["price"]))
        and (item.get("category") is None or _text(item["category"], 256))
        and (item.get("brand") is None or _text(item["brand"], 256))
        and (item.get("position") is None or _integer(item["position"], 1, 1_000_000))
    )


def _click(event: dict[str, Any]) -> dict[str, Any] | None:
    if all(_id(event.get(name)) for name in CLICK_IDS) and _integer(event.get("ts"), 0, MAX_TS):
        return {name: event[name] for name in (*CLICK_IDS, "ts")}
    return None


def _id(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value.encode()) <= 256


def _text(value: object, max_length: int) -> bool:
    return isinstance(value, str) and len(value) <= max_length


def _integer(value: object, minimum: int, maximum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return abs(float(value)) != float("inf")
    except OverflowError:
        return False


def _context(value: object) -> bool:
    return (
        isinstance(value, dict) and len(value) <= 64 and all(_text(k, 256) and _text(v, 256) for k, v in value.items())
    )
