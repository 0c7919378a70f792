"""Parquet logs: one event per row, as columns or as JSON; rows are converted to JSON lines for the decoder.

So an invalid row becomes a dead letter for the same reason as an invalid line.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prectr.state.errors import InputError, Remedy
from prectr.stream.events.contract import MAX_EVENT_BYTES
from prectr.stream.events.wire import WireClick, WireItem, WirePage
from prectr.stream.readers.errors import CorruptLogError
from prectr.stream.readers.raw_file import RawFile

_BATCH_ROWS: Final = 1024
_BUFFER_BYTES: Final = 1 << 16
_JSON_COLUMNS: Final = ("value", "event")
_TYPE: Final = "type"
_ITEMS: Final = "items"
_FIELDS: Final = (_TYPE, *dict.fromkeys((*WirePage.__struct_fields__, *WireClick.__struct_fields__)))
_ITEM_FIELDS: Final = frozenset(WireItem.__struct_fields__)
_MAPS: Final = ("context", "features")
_TOO_LARGE: Final = b"a row of more than 1 MiB".ljust(MAX_EVENT_BYTES + 1)
"""Stands for such a row, whose texts are never in memory; equal for all of them."""

_encode = msgspec.json.Encoder().encode


def parquet_rows(
    path: Path,
    on_progress: Callable[[float], None],
    expected: os.stat_result | None = None,
    batch_rows: int = _BATCH_ROWS,
) -> Iterator[list[bytes]]:
    """Yield the rows as JSON lines, several at a time, in bounded memory.

    The columns are the fields of an event (other columns are ignored; null means that the field is absent; a timestamp
    becomes ms since 1970, of UTC where it has no zone; `items` is a list of structs, `context` and `features` are maps
    or structs, and each of the three may be JSON text), or a single column `value` or `event` contains the JSON as text
    or bytes. A value that cannot be read makes its row invalid, not the file. A row whose texts have more than 1 MiB is
    represented by a line of 1 MiB + 1 bytes, which is too large for an event.

    Args:
        on_progress: receives the share of the rows that has been read, 0 to 1.
        expected: the file's status when reading began.
        batch_rows: rows to read at a time.

    Raises:
        CorruptLogError: the file is not readable Parquet, or was changed.
        InputError: it has none of these columns, or one of them twice.
    """
    try:
        with closing(RawFile(path, expected)) as raw:
            metadata = pq.read_metadata(raw)
            columns = _columns(path, metadata.schema)
            raw.seek(0)
            # A text that the file has once, in a dictionary, stays one text in memory, for however many rows.
            texts = [leaf.path for leaf in _leaves(metadata.schema) if _is_text(leaf)]
            options: dict[str, Any] = {"read_dictionary": texts, "buffer_size": _BUFFER_BYTES, "pre_buffer": False}
            with pq.ParquetFile(raw, metadata=metadata, **options) as file:
                row = 0
                for batch in file.iter_batches(batch_rows, columns=columns, use_threads=False):
                    row += batch.num_rows
                    on_progress(row / metadata.num_rows)
                    yield from _bounded_lines(batch)
            raw.check_unchanged()
    except (pa.ArrowException, ValueError) as error:
        raise CorruptLogError(f"it is not readable Parquet ({error})") from error


def check_columns(path: Path) -> None:
    """Check that a Parquet file has the columns of events; one that cannot be read is told when it is read.

    Raises:
        InputError: it has other columns, or one of them twice.
    """
    try:
        _columns(path, pq.read_metadata(path).schema)
    except (pa.ArrowException, ValueError, OSError):
        return


def ignored_columns(path: Path) -> list[str]:
    """Return the columns that are not read, those of items as `items.NAME`; none of a file that cannot be read."""
    try:
        metadata = pq.read_metadata(path)
        read = {column.partition(".")[0] for column in _columns(path, metadata.schema)}
    except (pa.ArrowException, ValueError, OSError, InputError):
        return []
    schema = metadata.schema.to_arrow_schema()
    ignored = [name for name in schema.names if name not in read]
    kind = schema.field(_ITEMS).type if _ITEMS in read else None
    if kind is not None and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        items = kind.value_type
        names = [items.field(index).name for index in range(items.num_fields)] if pa.types.is_struct(items) else []
        ignored += [f"{_ITEMS}.{name}" for name in names if name not in _ITEM_FIELDS]
    return ignored


def _leaves(schema: pq.ParquetSchema) -> list[pq.ColumnSchema]:
    return [schema.column(index) for index in range(len(schema))]


def _is_text(leaf: pq.ColumnSchema) -> bool:
    return leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type in ("STRING", "NONE", "JSON", "ENUM")


def _columns(path: Path, schema: pq.ParquetSchema) -> list[str]:
    """Return the columns to read: of items, only the fields of an item."""
    names = schema.to_arrow_schema().names
    duplicates = sorted({name for name in names if names.count(name) > 1} & {*_FIELDS, *_JSON_COLUMNS})
    if duplicates:
        raise InputError(f"{path}: two of its columns are named {duplicates[0]}: rename one")
    if _TYPE in names:
        fields = [name for name in _FIELDS if name in names and name != _ITEMS]
        item_fields = [
            leaf.path
            for leaf in _leaves(schema)
            if leaf.path.startswith(f"{_ITEMS}.") and not _ITEM_FIELDS.isdisjoint(leaf.path.split(".")[2:])
        ]
        return fields + (item_fields or [name for name in names if name == _ITEMS])
    for name in _JSON_COLUMNS:
        if name in names:
            return [name]
    raise InputError(
        f"{path} has the columns {', '.join(names) or 'none'}; an event has `type`, `request_id`, `user_id`, `ts` …, "
        "or is JSON in a column `value` or `event`",
        Remedy.CONVERT,
    )


def _bounded_lines(batch: pa.RecordBatch) -> Iterator[list[bytes]]:
    """Yield the lines of a batch, those of at most 1 MiB of texts at a time."""
    if sum(map(_text_bytes, batch.columns)) <= MAX_EVENT_BYTES:
        columns = [column.cast(_without_dictionaries(column.type)) for column in batch.columns]
        yield _lines(pa.RecordBatch.from_arrays(columns, names=batch.schema.names))
    elif batch.num_rows == 1:
        yield [_TOO_LARGE]
    else:
        half = batch.num_rows // 2
        yield from _bounded_lines(batch.slice(0, half))
        yield from _bounded_lines(batch.slice(half))


def _text_bytes(array: pa.Array) -> int:
    """Return the bytes of all texts in an array, each as often as it occurs."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        return pc.sum(lengths.take(array.indices)).as_py() or 0
    if pa.types.is_struct(kind):
        return sum(map(_text_bytes, array.flatten()))
    if pa.types.is_map(kind):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return sum(_text_bytes(part.slice(first, last - first)) for part in (array.keys, array.items))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _text_bytes(array.flatten())
    return 0


def _without_dictionaries(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_dictionaries(field.type)) for field in kind.fields])
    if pa.types.is_map(kind):
        return pa.map_(_without_dictionaries(kind.key_type), _without_dictionaries(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_dictionaries(kind.value_type)))
    return kind


def _lines(batch: pa.RecordBatch) -> list[bytes]:
    if _TYPE not in batch.schema.names:
        values = _python_values(batch.column(0), pa.binary())
        return [_json_line(value)[: MAX_EVENT_BYTES + 1] for value in values]
    columns = {name: _values(name, batch.column(name)) for name in batch.schema.names}
    rows = zip(*columns.values(), strict=True)
    return [_line(dict(zip(columns, row, strict=True)))[: MAX_EVENT_BYTES + 1] for row in rows]


def _values(name: str, column: pa.Array) -> list[Any]:
    if name == "ts" and pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", tz=column.type.tz), safe=False).cast(pa.int64())
    elif name == "ts" and pa.types.is_date(column.type):
        column = column.cast(pa.string())
    return _python_values(column)


def _python_values(column: pa.Array, text_type: pa.DataType | None = None) -> list[Any]:
    """Return the values; one that Python cannot represent, such as a text with a wrong byte, as one that none accepts.

    Args:
        text_type: what texts are read as.
    """
    if text_type is not None and pa.types.is_string(column.type):
        column = column.cast(text_type)
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        return [_python_value(column[index]) for index in range(len(column))]
    return values


def _python_value(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return {"unreadable": str(error)}


def _json_line(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else _encode(_json_value(value))


def _line(row: dict[str, Any]) -> bytes:
    fields = {name: _json_value(value) for name, value in row.items() if value is not None}
    if _ITEMS in fields:
        items = _parsed(fields[_ITEMS])
        fields[_ITEMS] = [_item(item) for item in items] if isinstance(items, list) else items
    return _encode(_with_maps(fields))


def _item(item: object) -> object:
    if not isinstance(item, dict):
        return _json_value(item)
    return _with_maps(
        {name: _json_value(value) for name, value in item.items() if value is not None and name in _ITEM_FIELDS}
    )


def _with_maps(fields: dict[str, object]) -> dict[str, object]:
    """Return the fields of an event or item with its maps, which are lists of pairs or JSON text, as objects."""
    for name in _MAPS:
        if name not in fields:
            continue
        value = _parsed(fields[name])
        if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value):
            value = {str(key): _json_value(each) for key, each in value}
        fields[name] = value
    return fields


def _parsed(value: object) -> object:
    """Return the object or list that a text is the JSON of; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return value


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
