"""Parquet logs: a row is an event or a dead letter, as a line is."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prectr.state.errors import InputError
from prectr.stream.events.contract import Click, InvalidEvent, Item, ResultPage
from prectr.stream.events.decode import decode_lines
from prectr.stream.readers import LogFile

PAGE = ResultPage(
    "r1",
    "u1",
    "red shoes",
    1_700_000_000_123,
    [Item("a", title="Ünïcode", relevance=4, price=12.5, position=1), Item("b", category="shoes", position=2)],
    context={"device": "phone"},
)
CLICK = Click("r1", "u1", "a", 1_700_000_001_000)
ROWS: list[dict[str, Any]] = [msgspec.to_builtins(PAGE), msgspec.to_builtins(CLICK)]


def read(path: Path, start: int = 0) -> list[bytes]:
    return [line for batch in LogFile(path).batches(start, 100) for line in batch.lines]


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, **options), path)
    return path


def test_columns_make_the_same_events_as_lines(tmp_path: Path) -> None:
    rows = [{"item_id": None, **row, "extra": 1} for row in ROWS]
    assert decode_lines(read(write(tmp_path / "log.parquet", rows))) == [PAGE, CLICK]


def test_columns_that_are_not_read_are_known(tmp_path: Path) -> None:
    item = {"item_id": "a", "margin": 0.3, "features": {"margin": 0.3}}
    path = write(tmp_path / "log.parquet", [{**ROWS[0], "items": [item], "extra": 1}])
    assert LogFile(path).ignored_columns() == ["extra", "items.margin"]
    as_text = write(tmp_path / "text.parquet", [{"value": "{}", "partition": 3}])
    assert LogFile(as_text).ignored_columns() == ["partition"]
    assert LogFile(write(tmp_path / "whole.parquet", [{**ROWS[0], "items": "[]"}])).ignored_columns() == []
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    assert LogFile(tmp_path / "broken.parquet").ignored_columns() == []


def test_a_column_of_json_makes_the_same_events_as_lines(tmp_path: Path) -> None:
    lines = [msgspec.json.encode(PAGE), msgspec.json.encode(CLICK), b"nonsense"]
    for name, values in (("value", lines), ("event", [line.decode() for line in lines])):
        path = write(tmp_path / f"{name}.parquet", [{name: value, "partition": 3} for value in values])
        assert read(path) == lines
    assert read(write(tmp_path / "null.parquet", [{"value": "{}"}, {"value": None}])) == [b"{}", b"null"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_become_milliseconds_since_the_epoch(tmp_path: Path, unit: str) -> None:
    instant = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    column = pa.array([instant, instant + timedelta(seconds=1)], pa.timestamp(unit, tz="Europe/Paris"))
    table = pa.table({"type": ["click"] * 2, "request_id": ["r"] * 2, "user_id": ["u"] * 2, "item_id": ["i"] * 2})
    pq.write_table(table.append_column("ts", column), tmp_path / "log.parquet")
    expected = int(instant.timestamp() * 1000)
    events = decode_lines(read(tmp_path / "log.parquet"))
    assert [event.ts for event in events if isinstance(event, Click)] == [expected, expected + 1000]


def test_a_map_of_context_is_read(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            ("type", pa.string()),
            ("request_id", pa.string()),
            ("user_id", pa.string()),
            ("query", pa.string()),
            ("ts", pa.int64()),
            ("items", pa.list_(pa.struct([("item_id", pa.string()), ("unknown", pa.timestamp("us"))]))),
            ("context", pa.map_(pa.string(), pa.string())),
        ]
    )
    row = {**ROWS[0], "items": [{"item_id": "a", "unknown": datetime(2026, 1, 1)}], "context": [("device", "phone")]}
    (event,) = decode_lines(read(write(tmp_path / "log.parquet", [row], schema=schema)))
    assert isinstance(event, ResultPage)
    assert event.context == {"device": "phone"}
    assert event.items == [Item("a", position=1)]


@pytest.mark.parametrize("price", [float("nan"), float("inf")])
def test_a_price_that_is_no_number_is_an_invalid_page(tmp_path: Path, price: float) -> None:
    row = {**ROWS[0], "items": [{"item_id": "a", "price": price}]}
    (event,) = decode_lines(read(write(tmp_path / "log.parquet", [row])))
    assert isinstance(event, InvalidEvent)
    assert (event.reason, event.kind, event.user_id) == ("invalid_field", "impression", "u1")


def test_decimal_prices_and_bytes_of_text_are_read_and_other_bytes_rejected(tmp_path: Path) -> None:
    good = {**ROWS[0], "user_id": "é".encode(), "items": [{"item_id": "a", "price": Decimal("9.99")}]}
    bad = {**good, "user_id": b"\xff\xfe"}
    events = decode_lines(read(write(tmp_path / "log.parquet", [good, bad])))
    assert isinstance(events[0], ResultPage)
    assert (events[0].user_id, events[0].items[0].price) == ("é", 9.99)
    assert isinstance(events[1], InvalidEvent)
    assert (events[1].reason, events[1].kind) == ("invalid_field", "impression")


def test_wrong_types_and_missing_fields_are_rejected_row_by_row(tmp_path: Path) -> None:
    click = msgspec.to_builtins(CLICK)
    rows = [click, {**click, "item_id": None}, {**click, "type": None}, {**click, "ts": None}, click]
    events = decode_lines(read(write(tmp_path / "log.parquet", rows)))
    reasons = [event.reason if isinstance(event, InvalidEvent) else "" for event in events]
    assert reasons == ["", "missing_field", "unknown_type", "missing_field", ""]
    (event,) = decode_lines(read(write(tmp_path / "null.parquet", [{**ROWS[0], "items": [None, {"item_id": "a"}]}])))
    assert isinstance(event, InvalidEvent)
    assert (event.reason, event.kind) == ("invalid_field", "impression")
    dated = write(tmp_path / "dates.parquet", [{**click, "ts": datetime(2026, 1, 1).date()}])
    (event,) = decode_lines(read(dated))
    assert isinstance(event, InvalidEvent)
    assert event.reason == "invalid_field"


def test_reading_resumes_at_the_row_where_it_stopped(tmp_path: Path) -> None:
    rows = [{"value": str(n)} for n in range(5000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet", row_group_size=700)
    assert read(tmp_path / "log.parquet", 1500) == [str(n).encode() for n in range(1500, 5000)]
    file = LogFile(tmp_path / "log.parquet")
    list(file.batches())
    assert file.bytes_read == file.identity.size


def test_columns_that_are_no_events_are_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"columns foo, bar; an event has"):
        read(write(tmp_path / "log.parquet", [{"foo": 1, "bar": 2}]))


def test_a_truncated_parquet_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"log\.parquet: it is not readable Parquet"):
        read(path)


def test_a_text_that_the_file_has_once_is_not_in_memory_for_each_row(tmp_path: Path) -> None:
    """A few hundred bytes of Parquet: a title of 2 MiB in a dictionary, on 1,024 pages of 20 items."""
    items = pa.array([[{"item_id": "a", "title": "x" * (1 << 21), "extra": "y"}]], None)
    pages = pa.table(
        {
            "type": pa.array(["impression"] * 1024),
            "request_id": pa.array([f"r{n}" for n in range(1024)]),
            "user_id": pa.array(["u"] * 1024),
            "query": pa.array(["q"] * 1024),
            "ts": pa.array([1_700_000_000_000] * 1024),
            "items": pa.ListArray.from_arrays(
                range(0, 20 * 1025, 20),
                pa.StructArray.from_arrays(
                    [
                        pa.array(["a"] * 20 * 1024),
                        pa.DictionaryArray.from_arrays(
                            pa.array([0] * 20 * 1024, pa.int32()), items.flatten().field("title")
                        ),
                    ],
                    ["item_id", "title"],
                ),
            ),
        }
    )
    path = tmp_path / "log.parquet"
    pq.write_table(pages, path, compression="zstd", dictionary_pagesize_limit=1 << 23)
    del pages
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    before = pa.default_memory_pool().max_memory()
    lines = read(path)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    assert pa.default_memory_pool().max_memory() - before < 64 << 20
    events = decode_lines(lines)
    assert [event.reason for event in events if isinstance(event, InvalidEvent)] == ["too_large"] * 1024


def test_one_row_that_is_too_large_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    first_row = {"item_id": None, **ROWS[0]}
    rows = [first_row, first_row | {"query": "x" * (1 << 21)}, ROWS[1]]
    first, large, last = decode_lines(read(write(tmp_path / "log.parquet", rows)))
    assert (first, last) == (PAGE, CLICK)
    assert isinstance(large, InvalidEvent)
    assert large.reason == "too_large"


def test_fields_of_an_item_that_are_not_read_do_not_make_a_row_too_large(tmp_path: Path) -> None:
    page = ROWS[0] | {"items": [item | {"description": "x" * (1 << 21)} for item in ROWS[0]["items"]]}
    assert decode_lines(read(write(tmp_path / "log.parquet", [page]))) == [PAGE]


def test_two_columns_of_one_name_are_named(tmp_path: Path) -> None:
    column = pa.array(["click"])
    pq.write_table(pa.Table.from_arrays([column, column], ["type", "type"]), tmp_path / "log.parquet")
    with pytest.raises(InputError, match="two of its columns are named type"):
        read(tmp_path / "log.parquet")
