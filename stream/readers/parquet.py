"""Parquet logs: one event per row, as columns or as JSON; rows are converted to JSON lines for the decoder.

So an invalid row becomes a dead letter for the same reason as an invalid line.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from prectr.stream.events.contract import MAX_EVENT_BYTES, Click, Item, ResultPage
from prectr.stream.readers.errors import CorruptLogError

_BATCH_ROWS: Final = 1024
_JSON_COLUMNS: Final = ("value", "event")
_TYPE: Final = "type"
_FIELDS: Final = (_TYPE, *dict.fromkeys((*ResultPage.__struct_fields__, *Click.__struct_fields__)))
_ITEM_FIELDS: Final = frozenset(Item.__struct_fields__)

_encode = msgspec.json.Encoder().encode


def parquet_rows(path: Path, on_progress: Callable[[float], None]) -> Iterator[list[bytes]]:
    """Yield the rows as JSON lines, several at a time.

    The columns are the fields of an event (other columns are ignored; null means that the field is absent; a timestamp
    becomes ms since 1970; `items` is a list of structs, `context` a map or a struct), or a single column `value` or
    `event` contains the JSON as text or bytes.

    Args:
        on_progress: receives the share of the rows that has been read, 0 to 1.

    Raises:
        CorruptLogError: the file is not readable Parquet, or has none of these columns.
    """
    try:
        with pq.ParquetFile(path) as file:
            columns = _columns(file.schema_arrow)
            row = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                row += batch.num_rows
                on_progress(row / file.metadata.num_rows)
                yield _lines(batch)
    except (pa.ArrowException, ValueError) as error:
        raise CorruptLogError(f"it is not readable Parquet ({error})") from error


def _columns(schema: pa.Schema) -> list[str]:
    names = schema.names
    if _TYPE in names:
        return [name for name in _FIELDS if name in names]
    for name in _JSON_COLUMNS:
        if name in names:
            return [name]
    raise CorruptLogError(
        f"it has the columns {', '.join(names) or 'none'}; an event has `type`, `request_id`, `user_id`, `ts` …, "
        "or is JSON in a column `value` or `event`"
    )


def _lines(batch: pa.RecordBatch) -> list[bytes]:
    if _TYPE not in batch.schema.names:
        return [_json_line(value)[: MAX_EVENT_BYTES + 1] for value in batch.column(0).to_pylist()]
    columns = {name: _values(name, batch.column(name)) for name in batch.schema.names}
    rows = zip(*columns.values(), strict=True)
    return [_line(dict(zip(columns, row, strict=True)))[: MAX_EVENT_BYTES + 1] for row in rows]


def _values(name: str, column: pa.Array) -> list[Any]:
    if name == "ts" and pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", tz=column.type.tz), safe=False).cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values


def _json_line(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else _encode(_json_value(value))


def _line(row: dict[str, Any]) -> bytes:
    fields = {name: _json_value(value) for name, value in row.items() if value is not None}
    if isinstance(items := row.get("items"), list):
        fields["items"] = [_item(item) for item in items]
    if isinstance(context := row.get("context"), list):
        fields["context"] = {str(key): _json_value(value) for key, value in context}
    return _encode(fields)


def _item(item: object) -> object:
    if not isinstance(item, dict):
        return _json_value(item)
    return {name: _json_value(value) for name, value in item.items() if value is not None and name in _ITEM_FIELDS}


def _json_value(value: object) -> object:
    """Convert a value to JSON; a value without a JSON form becomes one that no field accepts."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and not isfinite(value):
        return {"float": str(value)}
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, dict):
        return {str(name): _json_value(field) for name, field in value.items() if field is not None}
    if isinstance(value, str | int | float | list) or value is None:
        return value
    return {type(value).__name__: str(value)}


def _text(value: bytes) -> object:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"bytes": value}
