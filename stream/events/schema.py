"""The JSON Schema of `search-events`, generated from `prectr.stream.events.wire`."""

from typing import Any, Final

import msgspec

from prectr.stream.events.wire import WireClick, WireEvent, WireId, WireItem, WirePage

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TITLES: Final = {"WirePage": "ResultPage", "WireClick": "Click", "WireItem": "Item"}
_MAX_FLOAT: Final = 1.7976931348623157e308


def event_schema() -> dict[str, Any]:
    """Return the schema of one event: a page or a click.

    Limits that JSON Schema cannot express are in descriptions: ids are measured in bytes, a time is a day of the
    calendar from 2000 on in UTC, and an event has at most 1 MiB.
    """
    variants, definitions = msgspec.json.schema_components(
        (WirePage, WireClick, WireItem, WireId, WireEvent), ref_template="#/$defs/{name}"
    )
    *_, item_id, event = variants
    schema = {
        "$schema": _DIALECT,
        "title": "search-events",
        "description": (
            "One event of a search engine's log, at most 1 MiB of JSON. Unknown fields are ignored. A number with a "
            "decimal point or an exponent is an id only up to 2^53, since beyond it digits are lost."
        ),
        **event,
        "$defs": definitions,
    }
    for name in ("WirePage", "WireClick"):
        _require_visitor(definitions[name], item_id)
    renamed: dict[str, Any] = _rewrite(schema)
    return renamed


def event_schema_text() -> str:
    """Return the text of docs/search-events.schema.json."""
    return msgspec.json.format(msgspec.json.encode(event_schema()), indent=2).decode() + "\n"


def _require_visitor(event: dict[str, Any], visitor_id: dict[str, Any]) -> None:
    """Require a user, or a session in its place; of an event with a user, `session_id` may be anything."""
    properties = event["properties"]
    properties["user_id"] = {"description": "The user; null or empty, or left out, for an anonymous visitor."}
    properties["session_id"] = {"description": "Of an anonymous visitor: takes the place of user_id."}
    event["anyOf"] = [
        {"required": ["user_id"], "properties": {"user_id": visitor_id}},
        {
            "required": ["session_id"],
            "properties": {"session_id": visitor_id, "user_id": {"enum": [None, ""]}},
        },
    ]


def _rewrite(schema: Any) -> Any:
    """Return a schema with the names of the contract, in which numbers are finite and whole ones are `integer` alone.

    A number such as 4.0 is an integer of JSON Schema.
    """
    if isinstance(schema, list):
        return [_rewrite(part) for part in schema]
    if isinstance(schema, str):
        path, name = schema.rpartition("/")[::2]
        return f"{path}/{_TITLES[name]}".lstrip("/") if name in _TITLES else schema
    if not isinstance(schema, dict):
        return schema
    rewritten = {name: _rewrite(part) for name, part in schema.items()}
    if "$defs" in rewritten:
        rewritten["$defs"] = {_TITLES[name]: part for name, part in rewritten["$defs"].items()}
    if rewritten.get("type") == "number":
        rewritten = {"minimum": -_MAX_FLOAT, "maximum": _MAX_FLOAT} | rewritten
    alternatives = rewritten.get("anyOf", [])
    if any(each.get("type") == "integer" for each in alternatives):
        rewritten["anyOf"] = [each for each in alternatives if "multipleOf" not in each]
    return rewritten
