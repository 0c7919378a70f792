"""The JSON Schema of `search-events`, generated from `prectr.stream.events.contract`."""

from typing import Any, Final

import msgspec

from prectr.stream.events.contract import Event

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def event_schema() -> dict[str, Any]:
    """Return the schema of one event: a page or a click.

    Limits that JSON Schema cannot express are in descriptions: ids are measured in bytes, and an event has at
    most 1 MiB.
    """
    schema = msgspec.json.schema(Event)
    return {
        "$schema": _DIALECT,
        "title": "search-events",
        "description": "One event of a search engine's log, at most 1 MiB of JSON. Unknown fields are ignored.",
        **schema,
    }


def event_schema_text() -> str:
    """Return the text of docs/search-events.schema.json."""
    return msgspec.json.format(msgspec.json.encode(event_schema()), indent=2).decode() + "\n"
