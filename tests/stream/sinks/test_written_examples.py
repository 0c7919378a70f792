"""Examples files as rows and tables, in every format, and those that cannot be read."""

import gzip
import sys
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from prectr.state.errors import InputError, UsageError
from prectr.stream.sinks.example_line import ExampleItem, ExampleLine
from prectr.stream.sinks.example_table import write_parquet
from prectr.stream.sinks.written_examples import read_examples

STATS = {str(level): (level, 0) for level in (1, 2, 3, 4)}
SUMS = {str(level): (level / 3, 0.0) for level in (1, 2, 3, 4)}


def line(number: int, items: list[ExampleItem], **more: object) -> ExampleLine:
    return ExampleLine(
        f"r{number}", "u", "q", 10 + number, items, STATS, STATS, number, 20 + number, [SUMS, SUMS], "Q", **more
    )


LINES = [
    line(0, [ExampleItem("a", 1, 4, 1, "A", 0.1, "c", "b", {"x": 1.0, "y": "z"}, {"lr": 0.1, "dnn": 0.2})]),
    line(1, [ExampleItem("a", 0, 2, 2, features={}), ExampleItem("b", 1, 1, 1, price=3.0)], context={"é": ""}),
    line(2, [ExampleItem("c", 0, 3, 7, scores={"lr": 0.3})], context={}, features={"n": 5.0, "t": ""}),
]


@pytest.fixture(params=["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"out.{request.param}"
    data = b"".join(msgspec.json.encode(each) + b"\n" for each in LINES)
    if path.suffix == ".parquet":
        write_parquet(path, LINES)
    else:
        compress = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)
        path.write_bytes(compress(data[:500]) + compress(data[500:]))
    return path


def test_the_rows_are_those_written_each_time_that_they_are_read(written: Path) -> None:
    examples = read_examples(str(written))
    assert list(examples) == list(examples) == LINES


def test_a_table_of_pages_is_the_parquet_file(written: Path, tmp_path: Path) -> None:
    table = read_examples(written).to_arrow()
    write_parquet(tmp_path / "expected.parquet", LINES)
    assert table.equals(pq.read_table(tmp_path / "expected.parquet"))
    first, _, third = table.to_pylist(maps_as_pydicts="strict")
    assert first["items"][0]["scores"] == {"lr": 0.1, "dnn": 0.2}
    assert first["items"][0]["features"] == {"x": {"number": 1.0, "text": None}, "y": {"number": None, "text": "z"}}
    assert (first["context"], third["context"], third["query_stats"]["3"]) == (None, {}, [3, 0])


def test_a_table_of_impressions_has_a_row_for_each_item(written: Path) -> None:
    table = read_examples(written).to_arrow(by="impression")
    found = table.select(
        ["request_id", "user_activity", "item_id", "click", "position", "price", "score_dnn", "score_lr"]
    )
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("r0", 0, "a", 1, 1, 0.1, 0.2, 0.1),
        ("r1", 1, "a", 0, 2, None, None, None),
        ("r1", 1, "b", 1, 1, 3.0, None, None),
        ("r2", 2, "c", 0, 7, None, None, 0.3),
    ]
    rows = table.to_pylist(maps_as_pydicts="strict")
    assert rows[3]["page_features"] == {"n": {"number": 5.0, "text": None}, "t": {"number": None, "text": ""}}
    assert [row["features"] for row in rows[1:]] == [{}, None, None]
    assert [row["context"] for row in rows] == [None, {"é": ""}, {"é": ""}, {}]


def test_a_file_without_pages_is_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").touch()
    examples = read_examples(tmp_path / "none.jsonl")
    assert list(examples) == []
    assert examples.to_arrow().num_rows == examples.to_arrow(by="impression").num_rows == 0
    write_parquet(tmp_path / "none.parquet", [])
    assert list(read_examples(tmp_path / "none.parquet")) == []


def test_only_two_kinds_of_rows_can_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="by='item': it is 'page' or 'impression'"):
        read_examples(tmp_path / "any.jsonl").to_arrow(by="item")  # type: ignore[arg-type]


def test_without_pandas_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"pandas, which is not installed: install it, or use to_arrow\(\)"):
        read_examples(tmp_path / "any.jsonl").to_pandas()


def test_what_is_no_file_of_examples_is_refused_by_name(tmp_path: Path) -> None:
    write_parquet(tmp_path / "whole.parquet", LINES)
    whole = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    pq.write_table(pa.table({"event": ["{}"]}), tmp_path / "events.parquet")
    wrong = pq.read_table(tmp_path / "whole.parquet").set_column(3, "ts", pa.array(["now"] * 3))
    pq.write_table(wrong, tmp_path / "wrong.parquet")
    frame = zstandard.ZstdCompressor().compress(msgspec.json.encode(LINES[0]) + b"\n")
    (tmp_path / "cut.jsonl.zst").write_bytes(frame + frame[:-5])
    for name, message in (
        ("cut.parquet", r"cut\.parquet: the examples cannot be read: "),
        ("missing.parquet", r"missing\.parquet: the examples cannot be read: No such file"),
        ("events.parquet", r"events\.parquet: row 1 is not an example: the file has no column request_id, user_id"),
        ("wrong.parquet", r"wrong\.parquet: row 1 is not an example: Expected `int`, got `str` - at `\$\.ts`"),
        ("cut.jsonl.zst", r"cut\.jsonl\.zst: corrupt after line 1: the zstd data is cut off"),
    ):
        with pytest.raises(InputError, match=message):
            list(read_examples(tmp_path / name))
