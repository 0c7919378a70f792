"""Examples as Arrow tables and Parquet files."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prectr.state.aggregates import LEVELS
from prectr.stream.sinks.example_line import ExampleLine

_BATCH_ITEMS: Final = 8192
"""Items of pages in memory at a time, and so in a row group; a page has at least one."""
_READ_PAGES: Final = 256


def _by_level(kind: Any) -> Any:
    return pa.struct([(str(level), pa.list_(kind)) for level in LEVELS])


_FEATURES: Final = pa.map_(pa.string(), pa.struct([("number", pa.float64()), ("text", pa.string())]))
"""A feature is a number or a text; the other is null."""

_ITEM: Final = pa.struct(
    [
        ("item_id", pa.string()),
        ("click", pa.int8()),
        ("relevance", pa.int8()),
        ("position", pa.int32()),
        ("title", pa.string()),
        ("price", pa.float64()),
        ("category", pa.string()),
        ("brand", pa.string()),
        ("features", _FEATURES),
        ("scores", pa.map_(pa.string(), pa.float64())),
    ]
)

SCHEMA: Final = pa.schema(
    [
        ("request_id", pa.string()),
        ("user_id", pa.string()),
        ("query", pa.string()),
        ("ts", pa.int64()),
        ("items", pa.list_(_ITEM)),
        ("query_stats", _by_level(pa.int64())),
        ("user_stats", _by_level(pa.int64())),
        ("user_activity", pa.int64()),
        ("closes_at", pa.int64()),
        ("query_decayed", pa.list_(_by_level(pa.float64()))),
        ("query_as_typed", pa.string()),
        ("context", pa.map_(pa.string(), pa.string())),
        ("features", _FEATURES),
    ]
)
"""One row a page, with the fields of `ExampleLine`."""


def to_batches(lines: Iterable[ExampleLine]) -> Iterator[Any]:
    """Yield the lines as record batches of `SCHEMA`."""
    rows: list[dict[str, Any]] = []
    items = 0
    for line in lines:
        rows.append(_to_row(line))
        items += len(line.items)
        if items >= _BATCH_ITEMS:
            yield pa.RecordBatch.from_pylist(rows, SCHEMA)
            rows, items = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, SCHEMA)


def write_parquet(path: Path, lines: Iterable[ExampleLine]) -> None:
    """Write a Parquet file, whole or not at all; the same lines give the same bytes. Raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
            for batch in to_batches(lines):
                writer.write_batch(batch)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_parquet(path: Path) -> Iterator[ExampleLine]:
    """Yield the lines of a Parquet file.

    Raises OSError, pa.ArrowException or msgspec.ValidationError: it cannot be read, or is no file of examples.
    """
    # Opened here, since the errors of Python name the file once.
    with path.open("rb") as raw, pq.ParquetFile(raw) as file:
        missing = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
        if missing:
            raise msgspec.ValidationError(f"the file has no column {', '.join(missing)}")
        for batch in file.iter_batches(_READ_PAGES, use_threads=False):
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                yield _from_row(row)


def to_impressions(pages: Any) -> Any:
    """Return a table of pages as one with a row for each item of each page.

    The columns are those of the page without `items`, and of the item. The page's features are `page_features`, and
    `scores` is a column `score_MODEL` for each model, null where it has not scored the page.
    """
    batches = pages.to_batches()
    models = sorted({model for batch in batches for model in _models_of(batch)})
    schema = pa.schema(
        [
            *(
                field.with_name("page_features") if field.name == "features" else field
                for field in SCHEMA
                if field.name != "items"
            ),
            *(field for field in _ITEM if field.name != "scores"),
            *((f"score_{model}", pa.float64()) for model in models),
        ]
    )
    return pa.Table.from_batches([_impressions_of(batch, models, schema) for batch in batches], schema)


def _impressions_of(batch: Any, models: list[str], schema: Any) -> Any:
    page_of = pc.list_parent_indices(batch.column("items"))
    items = pc.list_flatten(batch.column("items"))
    columns = [batch.column(name).take(page_of) for name in SCHEMA.names if name != "items"]
    columns += [pc.struct_field(items, field.name) for field in _ITEM if field.name != "scores"]
    scores = pc.struct_field(items, "scores")
    columns += [pc.map_lookup(scores, query_key=pa.scalar(model), occurrence="first") for model in models]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _models_of(batch: Any) -> list[str]:
    scores = pc.struct_field(pc.list_flatten(batch.column("items")), "scores")
    models: list[str] = scores.keys.unique().to_pylist()
    return models


def _to_row(line: ExampleLine) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(line)
    for fields in (row, *row["items"]):
        if "features" in fields:
            fields["features"] = [(name, _to_feature(value)) for name, value in fields["features"].items()]
        for name in ("context", "scores"):
            if name in fields:
                fields[name] = list(fields[name].items())
    return row


def _to_feature(value: float | str) -> dict[str, float | str]:
    return {"text": value} if isinstance(value, str) else {"number": value}


def _from_row(row: dict[str, Any]) -> ExampleLine:
    present = _present(row)
    present["items"] = [_present(item) for item in row["items"]]
    return msgspec.convert(present, ExampleLine)


def _present(row: dict[str, Any]) -> dict[str, Any]:
    """The fields that are not null, with features as in the log."""
    present = {name: value for name, value in row.items() if value is not None}
    if "features" in present:
        present["features"] = {
            name: value["number"] if value["text"] is None else value["text"]
            for name, value in present["features"].items()
        }
    return present
