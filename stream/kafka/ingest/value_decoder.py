"""Values of foreign records as rows: JSON or Avro, with or without the bytes that name a registered schema."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import fastavro

from prectr.state.errors import ConfigError, UsageError
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.rows import decode_object
from prectr.stream.convert.values import shown, to_plain
from prectr.stream.kafka.ingest.avro_schema import parse_avro_schema
from prectr.stream.kafka.ingest.framing import MAGIC, split_frame
from prectr.stream.kafka.ingest.schema_registry import SchemaRegistry

ValueFormat = Literal["json", "avro", "avro-confluent"]
"""json: also behind a schema id. avro: a value without a schema id. avro-confluent: behind a schema id."""
VALUE_FORMATS: Final[tuple[ValueFormat, ...]] = ("json", "avro", "avro-confluent")
_DETAIL_CHARACTERS: Final = 200

ValueDecoder = Callable[[bytes], dict[str, Any]]
"""Returns the row of a value, or raises Unmappable."""


def decode_json(value: bytes) -> dict[str, Any]:
    """Return a JSON object; a schema id before it is skipped.

    Raises Unmappable `not_framed`, `too_large`, `not_json` or `not_an_object`.
    """
    # No JSON begins with a zero byte.
    return decode_object(split_frame(value)[1] if value[:1] == bytes((MAGIC,)) else value)


def value_decoder(value_format: ValueFormat, schema_file: Path | None, registry: SchemaRegistry | None) -> ValueDecoder:
    """Return the decoder of a topic's values.

    Args:
        schema_file: an Avro schema as JSON. Beside a registry, the values are read as if written with it, by the rules
            of Avro's schema resolution.
        registry: has the schemas of values behind a schema id.

    Raises:
        UsageError: the format needs a schema, or has none.
        ConfigError: the file is not an Avro schema.
    """
    if value_format == "json":
        if schema_file is not None:
            raise UsageError(f"{schema_file} is a schema, but the values are JSON, which needs none")
        return decode_json
    schema = None if schema_file is None else _read_schema(schema_file)
    if value_format == "avro":
        if schema is None:
            raise UsageError("values in Avro without a schema id need a file with their schema")
        return lambda value: decode_avro(value, schema)
    if schema is None and registry is None:
        raise UsageError("values in Avro behind a schema id need a schema registry, or a file with their schema")

    def decode(value: bytes) -> dict[str, Any]:
        schema_id, payload = split_frame(value)
        if registry is None:
            return decode_avro(payload, schema)
        return decode_avro(payload, registry.schema(schema_id), schema)

    return decode


def decode_avro(value: bytes, writer_schema: Any, reader_schema: Any = None) -> dict[str, Any]:
    """Return a record, with the types that `to_plain` gives.

    Raises Unmappable `not_avro`, `not_an_object` or `too_deep`.
    """
    stream = io.BytesIO(value)
    try:
        found: Any = fastavro.schemaless_reader(stream, writer_schema, reader_schema)
    except Exception as error:
        # Damaged bytes raise whatever reading them happens to raise.
        detail = f"{type(error).__name__} {error}"[:_DETAIL_CHARACTERS]
        raise Unmappable("not_avro", f"{len(value)} bytes do not fit the schema: {detail}") from error
    if rest := len(value) - stream.tell():
        raise Unmappable(
            "not_avro", f"{rest} bytes are left after the record: of another schema, or behind a schema id"
        )
    if not isinstance(found, dict):
        raise Unmappable("not_an_object", shown(found))
    try:
        return {name: to_plain(field) for name, field in found.items()}
    except RecursionError:
        raise Unmappable("too_deep", "arrays or records nested too deeply") from None


def _read_schema(path: Path) -> Any:
    try:
        return parse_avro_schema(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not an Avro schema: {error}") from error
