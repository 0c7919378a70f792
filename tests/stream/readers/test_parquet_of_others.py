"""Parquet as other programs write it: times, JSON in columns, maps, values that cannot be read."""

import json
from datetime import UTC, date, datetime
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

T = 1_700_000_000_123
PAGE = ResultPage(
    "r1",
    "u1",
    "red shoes",
    T,
    [Item("a", price=12.5, position=1, features={"bm25": 3.5}), Item("b", position=2, features={})],
    context={"device": "phone"},
    features={"hour": 7.0},
)
INSTANT = datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)
"""T as a date and time: 1,700,000,000 s is 2023-11-14 22:13:20 UTC."""


def events_of(path: Path, columns: dict[str, Any], **options: Any) -> list[Any]:
    table = pa.table(columns)
    pq.write_table(table, path / "log.parquet", **options)
    lines = [line for batch in LogFile(path / "log.parquet").batches(0, 100) for line in batch.lines]
    return list(decode_lines(lines))


def click_columns(**columns: pa.Array) -> dict[str, pa.Array]:
    count = len(next(iter(columns.values())))
    defaults = {"type": "click", "request_id": "r", "user_id": "u", "item_id": "i"}
    return {name: pa.array([text] * count) for name, text in defaults.items()} | {"ts": pa.array([T] * count)} | columns


def page_columns(**columns: pa.Array) -> dict[str, pa.Array]:
    row = {**msgspec.to_builtins(PAGE), **dict.fromkeys(columns)}
    return {name: columns.get(name, pa.array([value])) for name, value in row.items()}


@pytest.mark.parametrize(
    ("column", "options"),
    [
        (pa.array([INSTANT.isoformat()]), {}),
        (pa.array(["2023-11-15 00:13:20.123+02:00"]), {}),
        (pa.array([float(T)]), {}),
        (pa.array([INSTANT.replace(tzinfo=None)], pa.timestamp("us")), {}),
        (pa.array([INSTANT.replace(tzinfo=None)], pa.timestamp("ns")), {"use_deprecated_int96_timestamps": True}),
    ],
    ids=["ISO text", "ISO text in another zone", "float", "timestamp without a zone", "int96"],
)
def test_a_time_in_another_type_is_the_same_time(tmp_path: Path, column: pa.Array, options: dict[str, Any]) -> None:
    assert events_of(tmp_path, click_columns(ts=column), **options) == [Click("r", "u", "i", T)]


@pytest.mark.parametrize(
    ("column", "detail"),
    [
        (pa.array([date(2023, 11, 14)], pa.date32()), 'ts "2023-11-14" is a date without a time of day'),
        (pa.array(["2023-11-14 22:13:20"]), 'ts "2023-11-14 22:13:20" has no time zone'),
        (pa.array([1 << 62], pa.timestamp("ms", tz="UTC")), "is after the year 9999"),
    ],
    ids=["date", "text without a zone", "out of range"],
)
def test_what_is_no_time_is_a_dead_letter_that_says_why(tmp_path: Path, column: pa.Array, detail: str) -> None:
    (event,) = events_of(tmp_path, click_columns(ts=column))
    assert isinstance(event, InvalidEvent)
    assert detail in event.detail


def test_items_features_and_context_may_be_json_text(tmp_path: Path) -> None:
    row = msgspec.to_builtins(PAGE)
    texts = {name: pa.array([json.dumps(row[name])]) for name in ("items", "features", "context")}
    assert events_of(tmp_path, page_columns(**texts)) == [PAGE]
    nested = [{**item, "features": json.dumps(item["features"])} for item in row["items"]]
    assert events_of(tmp_path, page_columns(items=pa.array([nested]))) == [PAGE]


@pytest.mark.parametrize("text", ["[{", "none", "", "[" * 200_000], ids=["cut off", "a word", "empty", "too deep"])
def test_text_that_is_no_json_is_a_dead_letter(tmp_path: Path, text: str) -> None:
    (event,) = events_of(tmp_path, page_columns(items=pa.array([text])))
    assert isinstance(event, InvalidEvent)
    assert (event.reason, event.kind) == ("invalid_field", "impression")
    assert "must be a list of at most 200 objects" in event.detail


def test_features_may_be_maps(tmp_path: Path) -> None:
    kind = pa.map_(pa.string(), pa.float64())
    items = pa.list_(
        pa.struct([("item_id", pa.string()), ("price", pa.float64()), ("position", pa.int32()), ("features", kind)])
    )
    shown = [
        {"item_id": "a", "price": 12.5, "position": 1, "features": [("bm25", 3.5)]},
        {"item_id": "b", "price": None, "position": 2, "features": []},
    ]
    columns = page_columns(items=pa.array([shown], items), features=pa.array([[("hour", 7.0)]], kind))
    assert events_of(tmp_path, columns) == [PAGE]


def test_an_anonymous_visitor_has_a_session_and_no_user(tmp_path: Path) -> None:
    users, sessions = pa.array([None, "u", None]), pa.array(["s", "s", None])
    first, second, third = events_of(tmp_path, click_columns(user_id=users, session_id=sessions))
    assert (first.user_id, second.user_id) == ("s", "u")
    assert isinstance(third, InvalidEvent)
    assert third.reason == "missing_field"


def with_a_wrong_byte(*texts: bytes) -> pa.Array:
    """Return a column of texts that are not all UTF-8, as a careless writer leaves them."""
    values = pa.array(texts, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), values.buffers())


def test_a_wrong_byte_rejects_its_row_alone(tmp_path: Path) -> None:
    first, second, third = events_of(tmp_path, click_columns(user_id=with_a_wrong_byte(b"u", b"\xffx", b"w")))
    assert (first.user_id, third.user_id) == ("u", "w")
    assert isinstance(second, InvalidEvent)
    assert (second.reason, second.kind) == ("invalid_field", "click")
    assert "can't decode byte 0xff" in second.detail


def test_a_wrong_byte_in_a_column_of_json_rejects_its_row_alone(tmp_path: Path) -> None:
    good = msgspec.json.encode(Click("r", "u", "i", T))
    first, second = events_of(tmp_path, {"value": with_a_wrong_byte(good, good.replace(b'"u"', b'"\xff"'))})
    assert first == Click("r", "u", "i", T)
    assert isinstance(second, InvalidEvent)
    assert second.reason == "not_utf8"


def test_a_wrong_byte_in_an_item_rejects_its_page_alone(tmp_path: Path) -> None:
    titles = with_a_wrong_byte(b"red", b"r\xff")
    items = pa.StructArray.from_arrays([pa.array(["a", "b"]), titles], ["item_id", "title"])
    columns = {name: pa.array([value] * 2) for name, value in msgspec.to_builtins(PAGE).items()}
    first, second = events_of(tmp_path, columns | {"items": pa.ListArray.from_arrays([0, 1, 2], items)})
    assert first.items == [Item("a", title="red", position=1)]
    assert isinstance(second, InvalidEvent)
    assert second.reason == "invalid_field"


def test_an_id_that_is_a_time_out_of_range_is_a_dead_letter(tmp_path: Path) -> None:
    times = pa.array([1 << 62, 0], pa.timestamp("us", tz="UTC"))
    events = events_of(tmp_path, click_columns(request_id=times))
    assert [event.reason for event in events] == ["invalid_field"] * 2
    assert "out of range" in events[0].detail


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pa.table({"foo": [1], "bar": [2]}), "has the columns foo, bar"),
        (
            pa.Table.from_arrays([pa.array(["u"])] * 2 + [pa.array(["click"])], ["user_id", "user_id", "type"]),
            "user_id",
        ),
    ],
    ids=["other columns", "two columns of one name"],
)
def test_other_columns_are_an_error_that_says_what_to_do(tmp_path: Path, table: pa.Table, said: str) -> None:
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(InputError, match=said) as error:
        list(LogFile(tmp_path / "log.parquet").batches())
    assert "replace it" not in str(error.value)
