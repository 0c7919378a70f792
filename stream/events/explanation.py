"""What is wrong with an event, and how to mend it: the details of dead letters."""

import difflib
import json
import re
from typing import Any, Final

from prectr.stream.events.event_time import explain_time, is_implausible
from prectr.stream.events.wire import MAX_EXACT_FLOAT, WireClick, WireItem, WirePage

_SHOWN_CHARACTERS: Final = 60
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`(?: - at `(\$.*)`)?")
_PATH: Final = re.compile(r"^(.*) - at `\$(.*)`$", re.DOTALL)
_STEP: Final = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")
_ID_RULE: Final = "must be text of 1 to 256 bytes, or a whole number"
_RULES: Final = {
    "request_id": _ID_RULE,
    "user_id": _ID_RULE,
    "session_id": _ID_RULE,
    "item_id": _ID_RULE,
    "query": "must be text of at most 2,000 characters, or null",
    "title": "must be text of at most 2,000 characters",
    "category": "must be text of at most 256 characters",
    "brand": "must be text of at most 256 characters",
    "action": "must be text of 1 to 256 characters",
    "position": "must be a whole number from 1 to 1,000,000: positions count from 1",
    "relevance": "must be a level from 1 (irrelevant) to 4 (strongly relevant); leave it out where there is none",
    "price": "must be a number, without quotes or currency",
    "items": "must be a list of at most 200 objects",
    "context": "must hold at most 64 texts of at most 256 characters, by name",
    "features": "must hold at most 64 numbers or texts of at most 256 characters, by name",
}
_FIELDS: Final = {
    "impression": WirePage.__struct_fields__,
    "click": WireClick.__struct_fields__,
    "item": WireItem.__struct_fields__,
}
_OTHER_NAMES: Final = {
    "request_id": ("query_id", "search_id", "impression_id", "event_id", "id"),
    "user_id": ("uid", "visitor_id", "client_id", "customer_id", "visitor", "user"),
    "item_id": ("product_id", "object_id", "document_id", "doc_id", "sku", "asin", "id"),
    "query": ("search_term", "query_text", "keywords", "user_query", "term", "q"),
    "ts": ("timestamp", "time", "event_time", "datetime", "date"),
    "items": ("results", "products", "documents", "hits", "impressions"),
}


def explain_type(shown: str) -> str:
    """Return what is wrong with an object whose type, as JSON, is `shown`; empty if it has none."""
    if not shown:
        return 'without a type: it must be "impression" or "click"'
    return (
        f'the type is {shown[:_SHOWN_CHARACTERS]}, but must be "impression" or "click"; '
        "further kinds of click go into `action`"
    )


def explain_event(event: Any, kind: str, message: str) -> str:
    """Return what is wrong with an event, and what is right in its place.

    Args:
        event: the JSON object.
        kind: its type, `impression` or `click`.
        message: of the decoder of `prectr.stream.events.wire`, with a JSON path.
    """
    if missing := _MISSING.match(message):
        field, path = missing.groups()
        holder = _follow(event, (path or "$")[1:])
        return _explain_missing(field, holder, kind if path is None else "item", path or "$")
    if is_implausible(event.get("ts")):
        return f"ts {_shown(event['ts'])} {explain_time(event['ts'])}"
    located = _PATH.match(message)
    return message if located is None else _explain_value(event, located[2], located[1])


def _explain_missing(field: str, holder: Any, kind: str, path: str) -> str:
    where = "" if path == "$" else f" of `{path}`"
    detail = f"the field `{field}`{where} is missing"
    known = _FIELDS[kind]
    others = [name for name in holder if name not in known and name != "type"] if isinstance(holder, dict) else []
    plain = {_plain(name): name for name in others}
    likely = [plain[name] for other in _OTHER_NAMES.get(field, ()) if (name := _plain(other)) in plain]
    close = difflib.get_close_matches(_plain(field), plain, n=1, cutoff=0.7)
    if close or likely:
        detail += f"; there is a field {_shown(plain[close[0]] if close else likely[0])}: is that it?"
    return detail


def _explain_value(event: Any, path: str, message: str) -> str:
    name, value = _culprit(event, path)
    field = next((step[1] for step in reversed(list(_STEP.finditer(path))) if step[1]), "")
    rule = explain_time(value) if field == "ts" else _RULES.get(field, "")
    if field.endswith("_id") and isinstance(value, float) and abs(value) > MAX_EXACT_FLOAT:
        rule = "is a floating-point number that has lost digits: write the id as text"
    if not rule:
        return f"{message} - at `${path}`"
    return f"{name} {_shown(value)} {rule} - at `${path}`"


def _culprit(event: Any, path: str) -> tuple[str, Any]:
    """Return the name and the value at a path; of a map, the first entry that is no short text or number."""
    to_map = path.removesuffix("[...]")
    value, name = _follow(event, to_map), to_map.rsplit(".", 1)[-1]
    if path.endswith("[...]") and isinstance(value, dict):
        allowed: tuple[type, ...] = (str, int, float, type(None)) if name == "features" else (str, type(None))
        for key, entry in value.items():
            if not isinstance(entry, allowed) or len(key) > 256 or (isinstance(entry, str) and len(entry) > 256):
                return f"{name}: {_shown(key)}", entry
    return name, value


def _follow(value: Any, path: str) -> Any:
    for step in _STEP.finditer(path):
        try:
            value = value[int(step[2])] if step[2] else value[step[1]]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _shown(value: Any) -> str:
    """Return a value as JSON in ASCII, shortened; of objects only small ones, such as one that names a wrong type."""
    if isinstance(value, list | dict) and not (isinstance(value, dict) and len(value) == 1 and _is_short(value)):
        return "(a list)" if isinstance(value, list) else "(an object)"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _is_short(value: dict[str, Any]) -> bool:
    return all(isinstance(entry, str | int | float | None) for entry in value.values())
