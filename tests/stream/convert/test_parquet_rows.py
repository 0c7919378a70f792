"""Promises of the reader of Parquet rows: every type of time, number and text that data frames write."""

import datetime
import decimal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prectr.state.errors import InputError
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.rows import read_rows
from prectr.stream.convert.times import to_millis
from tests.stream.convert.conversion import T


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def rows_of(path: Path) -> list[Any]:
    return [row.value.reason if isinstance(row.value, Unmappable) else row.value for row in read_rows(path)]


MOMENT = datetime.datetime(2025, 3, 1, 10)
NANOSECONDS = T * 1_000_000 + 123_456_789


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["2025-03-01T10:00:00.123Z"]),
        pa.array([T + 123], pa.timestamp("ms", "UTC")),
        pa.array([T + 123], pa.timestamp("ms")),
        pa.array([(T + 123) * 1000], pa.timestamp("us", "Europe/Berlin")),
        pa.array([NANOSECONDS], pa.timestamp("ns")),
        pa.array([NANOSECONDS], pa.timestamp("ns", "UTC")),
        pa.array([T + 123]),
        pa.array([decimal.Decimal(T + 123)], pa.decimal128(20, 0)),
        pa.array([decimal.Decimal(T + 123) / 1000], pa.decimal128(20, 3)),
        pa.array([(T + 123) / 1000]),
    ],
)
def test_every_type_of_time_is_the_same_moment(tmp_path: Path, column: Any) -> None:
    [row] = rows_of(write(tmp_path / "a.parquet", {"ts": column}))
    assert to_millis(row["ts"], "auto", datetime.UTC) == T + 123


def test_int96_and_date32_are_times(tmp_path: Path) -> None:
    old = write(
        tmp_path / "a.parquet",
        {"ts": pa.array([NANOSECONDS], pa.timestamp("ns"))},
        use_deprecated_int96_timestamps=True,
    )
    assert pq.ParquetFile(old).schema.column(0).physical_type == "INT96"
    [row] = rows_of(old)
    assert to_millis(row["ts"], "auto", datetime.UTC) == T + 123
    [row] = rows_of(write(tmp_path / "b.parquet", {"ts": pa.array([MOMENT.date()])}))
    assert to_millis(row["ts"], "auto", datetime.UTC) == T - 10 * 3_600_000


def test_nanoseconds_within_lists_of_objects_are_times(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("id", pa.int64()), ("at", pa.timestamp("ns", "UTC"))]))
    for kinds in (kind, pa.large_list(kind.value_type)):
        column = pa.array([[{"id": 1, "at": NANOSECONDS}], None, []], kinds)
        first, second, third = rows_of(write(tmp_path / "a.parquet", {"items": column}))
        assert to_millis(first["items"][0]["at"], "auto", None) == T + 123
        assert second == {"items": None}
        assert third == {"items": []}


def test_nested_and_compact_types_are_plain_values(tmp_path: Path) -> None:
    columns = {
        "price": pa.array([decimal.Decimal("9.50")]),
        "sku": pa.array([decimal.Decimal(7)], pa.decimal128(10, 0)),
        "brand": pa.array(["acme"]).dictionary_encode(),
        "text": pa.array([b"abc"]),
        "uuid": pa.array([b"\xff\x00"], pa.binary(2)),
        "attributes": pa.array([[("size", "XL")]], pa.map_(pa.string(), pa.string())),
        "items": pa.array([[{"id": 1, "clicked": True, "price": decimal.Decimal("1.25")}]]),
        "small": pa.array([3], pa.int8()),
        "half": pa.array([0.5], pa.float32()),
    }
    assert rows_of(write(tmp_path / "a.parquet", columns)) == [
        {
            "price": 9.5,
            "sku": 7,
            "brand": "acme",
            "text": "abc",
            "uuid": "ff00",
            "attributes": {"size": "XL"},
            "items": [{"id": 1, "clicked": True, "price": 1.25}],
            "small": 3,
            "half": 0.5,
        }
    ]


def test_a_value_that_cannot_be_represented_costs_its_row_only(tmp_path: Path) -> None:
    columns = {
        "at": pa.array([T, 2**62, T], pa.timestamp("ms")),
        "text": pa.array(["a", "b", "c"]),
    }
    found = rows_of(write(tmp_path / "a.parquet", columns))
    assert found == [{"at": MOMENT, "text": "a"}, "unreadable_value", {"at": MOMENT, "text": "c"}]
    # Bytes that are not UTF-8 under the type of text, as damaged writers leave them.
    table = pa.table({"text": pa.array([b"a", b"\xff", b"c"]).view(pa.string())})
    pq.write_table(table, tmp_path / "b.parquet")
    assert rows_of(tmp_path / "b.parquet") == [{"text": "a"}, "unreadable_value", {"text": "c"}]


def test_files_that_are_no_tables_are_rejected(tmp_path: Path) -> None:
    twice = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]), twice)
    with pytest.raises(InputError, match="two columns are named 'x'"):
        rows_of(twice)
    junk = tmp_path / "b.parquet"
    junk.write_bytes(b"PAR1 this is none PAR1")
    with pytest.raises(InputError, match="no readable Parquet file"):
        rows_of(junk)
    whole = write(tmp_path / "c.parquet", {"a": list(range(10_000))}).read_bytes()
    junk.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="no readable Parquet file"):
        rows_of(junk)


def test_no_rows_are_no_error_and_batches_leave_none_out(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path / "a.parquet", {"a": pa.array([], pa.int64())})) == []
    many = write(tmp_path / "b.parquet", {"a": list(range(1000))}, row_group_size=77)
    assert [row["a"] for row in rows_of(many)] == list(range(1000))
    assert [row.place for row in read_rows(many)][-1] == f"{many} row 1000"


def test_a_large_text_of_a_dictionary_in_every_row_needs_little_memory(tmp_path: Path) -> None:
    text = "x" * (2 << 20)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1024, pa.int32()), pa.array([text]))
    path = write(
        tmp_path / "a.parquet", {"id": list(range(1024)), "text": column}, compression="zstd", store_schema=False
    )
    assert path.stat().st_size < 20_000
    code = """if True:
        import resource, sys
        from pathlib import Path
        from prectr.stream.convert.rows import read_rows
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows = sum(len(row.value["text"]) == 2 << 20 for row in read_rows(Path(sys.argv[1])))
        print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
    """
    output = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    rows, mebibytes = map(int, output.split())
    assert rows == 1024
    # All rows at once are 2 GiB.
    assert mebibytes < 600
