"""Parses Avro schemas."""

from typing import Any

import fastavro
import fastavro.schema
import msgspec


def parse_avro_schema(text: str | bytes, named: dict[str, Any] | None = None) -> Any:
    """Parse a schema, JSON in text.

    Args:
        named: the schemas that it may refer to, by full name; those that it defines are added.

    Raises:
        ValueError: the text is not an Avro schema.
    """
    try:
        return fastavro.parse_schema(msgspec.json.decode(text), named_schemas={} if named is None else named)
    except (
        msgspec.MsgspecError,
        fastavro.schema.SchemaParseException,
        fastavro.schema.UnknownType,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        # fastavro checks only a part of a schema; the rest it uses, and fails.
        raise ValueError(f"{type(error).__name__} {error}") from error
