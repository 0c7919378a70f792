"""Rows of Parquet files as dicts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from prectr.state.errors import InputError
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.values import to_plain

_BATCH_ROWS: Final = 64
"""Rows in memory at a time: each can hold a text of a few MiB that the file has once, in a dictionary."""
_MAX_BATCH_BYTES: Final = 1 << 30


def read_parquet(path: Path, on_bytes: Callable[[int], None]) -> Iterator[tuple[str, dict[str, Any] | Unmappable]]:
    """Yield each row with its place; Unmappable where a value of the row cannot be represented.

    Times have microseconds, since Python's have no more. Raises InputError: the file cannot be read.
    """
    try:
        # Memory-mapped, pages are not copied; int96 would otherwise overflow outside 1677 to 2262.
        with pq.ParquetFile(path, memory_map=True, coerce_int96_timestamp_unit="us") as file:
            schema = _in_microseconds(file.schema_arrow)
            names = schema.names
            duplicates = sorted(name for name in set(names) if names.count(name) > 1)
            if duplicates:
                raise InputError(f"{path}: two columns are named {duplicates[0]!r}; rename one")
            number, size = 0, path.stat().st_size
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                if batch.nbytes > _MAX_BATCH_BYTES:
                    raise InputError(f"{path} row {number + 1}: {batch.nbytes:,} bytes in {batch.num_rows} rows")
                on_bytes(size * (number + batch.num_rows) // file.metadata.num_rows)
                columns = _columns(batch, schema)
                for index in range(batch.num_rows):
                    number += 1
                    yield f"{path} row {number}", _row(names, columns, index)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable Parquet file: {error}") from error


def _columns(batch: Any, schema: Any) -> list[Any]:
    columns = zip(batch.columns, schema.types, strict=True)
    return [column if column.type == wanted else column.cast(wanted, safe=False) for column, wanted in columns]


def _row(names: list[str], columns: list[Any], index: int) -> dict[str, Any] | Unmappable:
    try:
        return {name: to_plain(column[index].as_py()) for name, column in zip(names, columns, strict=True)}
    except (ValueError, OverflowError, RecursionError, pa.ArrowException) as error:
        return Unmappable("unreadable_value", str(error))


def _in_microseconds(schema: Any) -> Any:
    """Return a schema with times of nanoseconds, also those within lists and structs, in microseconds."""
    return pa.schema([field.with_type(_microseconds(field.type)) for field in schema])


def _microseconds(kind: Any) -> Any:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", tz=kind.tz)
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_microseconds(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_microseconds(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_microseconds(field.type)) for field in kind])
    return kind
