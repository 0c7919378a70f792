"""The JSON Schema of `search-events`, made from the contract in `prectr.stream.events.contract`."""

from typing import Any, Final

import msgspec

from prectr.stream.events.contract import Event

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def event_schema() -> dict[str, Any]:
    """Return the schema of one event: an impression or a click.

    What JSON Schema cannot say is said in descriptions: ids are measured in bytes, and an event is at
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
    """Return the schema as the file that is shipped holds it."""
    return msgspec.json.format(msgspec.json.encode(event_schema()), indent=2).decode() + "\n"
