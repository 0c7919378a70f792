"""The flaws of a real log: duplicated clicks, clicks on unknown pages, malformed events, events out of order."""

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

DUPLICATE_CLICK_SHARE: Final = 0.003
"""Share of the clicks that are sent twice."""
UNKNOWN_PAGE_CLICK_SHARE: Final = 0.002
"""Clicks on pages that are not in the log, as a share of the clicks."""
MALFORMED_SHARE: Final = 0.001
"""Malformed events, as a share of the valid ones."""
MAX_DELAY_MS: Final = 2000
"""Maximum delay of an event, so that neighbouring events swap order."""


def _fields(line: bytes) -> dict[str, object]:
    fields: dict[str, object] = msgspec.json.decode(line, type=dict[str, object])
    return fields


def _with(name: str, value: object) -> Callable[[bytes], bytes]:
    return lambda line: msgspec.json.encode({**_fields(line), name: value})


def _without(name: str) -> Callable[[bytes], bytes]:
    return lambda line: msgspec.json.encode({k: v for k, v in _fields(line).items() if k != name})


def _items(item: dict[str, object], count: int = 1) -> Callable[[bytes], bytes]:
    return _with("items", [item] * count)


CORRUPTIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "cut off": lambda line: line[: len(line) * 2 // 3],
    "not JSON": lambda line: b"page view: " + line[:40],
    "not an object": lambda line: b"[" + line + b"]",
    "invalid UTF-8": lambda line: line.replace(b'"user_id":"', b'"user_id":"\xff\xfe', 1),
    "two events in one line": lambda line: line + line,
    "NaN as time": lambda line: line.replace(b'"ts":', b'"ts":NaN,"was":', 1),
    "time as text": _with("ts", "yesterday"),
    "time before the epoch": _with("ts", -1),
    "huge time": _with("ts", 10**17),
    "no time": _without("ts"),
    "no request": _without("request_id"),
    "no user": _without("user_id"),
    "user is a list": _with("user_id", [17]),
    "request is null": _with("request_id", None),
    "empty request id": _with("request_id", ""),
    "id too long": _with("request_id", "x" * 300),
    "unknown type": _with("type", "scroll"),
    "no type": _without("type"),
}
"""Ways to corrupt any event: from a valid line to an invalid one."""

PAGE_CORRUPTIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "no items": _without("items"),
    "too many items": _items({"item_id": "i"}, 201),
    "items is an object": _with("items", {"item_id": "i"}),
    "level out of range": _items({"item_id": "i", "relevance": 9}),
    "level as text": _items({"item_id": "i", "relevance": "high"}),
    "position zero": _items({"item_id": "i", "position": 0}),
    "title too long": _items({"item_id": "i", "title": "long " * 500}),
    "item without id": _items({"title": "nameless"}),
    "price as text": _items({"item_id": "i", "price": "9.99"}),
    "no query": _without("query"),
}
"""Further ways to corrupt a page."""


def corrupt_line(line: bytes, rng: np.random.Generator) -> bytes:
    """Corrupt a valid line in a way drawn uniformly; the result is one line and never a valid event."""
    corruptions = list(CORRUPTIONS.values())
    if line.startswith(b'{"type":"impression"'):
        corruptions += PAGE_CORRUPTIONS.values()
    return corruptions[int(rng.integers(len(corruptions)))](line)
