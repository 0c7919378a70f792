"""Promises of the readers of rows: CSV, JSON lines and JSON arrays, whatever their dialect or damage."""

import codecs
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prectr.stream.convert.rows
from prectr.state.errors import InputError, UsageError
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.rows import read_rows
from prectr.stream.events.nesting import MAX_DEPTH


def rows_of(path: Path, **options: Any) -> list[Any]:
    """Values of the rows; of those that cannot be read, the reason."""
    return [row.value.reason if isinstance(row.value, Unmappable) else row.value for row in read_rows(path, **options)]


def file_with(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_csv_of_any_delimiter_and_line_end(tmp_path: Path, delimiter: str, line_end: str) -> None:
    lines = [delimiter.join(cells) for cells in (["id", "query", "items"], ["1", "red shoe", "a b"], ["2", "", "é"])]
    expected = [{"id": "1", "query": "red shoe", "items": "a b"}, {"id": "2", "query": "", "items": "é"}]
    for name in ("a.csv", "a.tsv", "a.txt", "A.CSV"):
        assert rows_of(file_with(tmp_path, name, line_end.join(lines) + line_end)) == expected


@given(
    table=st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")), min_size=2, max_size=2)
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_csv_reads_back_whatever_a_csv_writer_writes(tmp_path: Path, table: list[list[str]]) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["first", "second"], *table])
    assert rows_of(path) == [{"first": first, "second": second} for first, second in table]


def test_csv_cells_may_hold_quotes_delimiters_and_newlines(tmp_path: Path) -> None:
    path = file_with(tmp_path, "a.csv", 'q,t\n"a, ""b""\nc",d\nTV 40",e\n')
    assert rows_of(path) == [{"q": 'a, "b"\nc', "t": "d"}, {"q": 'TV 40"', "t": "e"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_in_the_encodings_of_spreadsheets(tmp_path: Path, encoding: str) -> None:
    path = file_with(tmp_path, "a.csv", "größe;q\n1;schön 😀\n".encode(encoding))
    assert rows_of(path) == [{"größe": "1", "q": "schön 😀"}]


def test_csv_rows_that_do_not_fit_are_left_out_one_by_one(tmp_path: Path) -> None:
    content = b"a,b\n1,2\n1,2,3\n1\n\n\xe9,2\n3,4\n"
    expected = [
        {"a": "1", "b": "2"},
        "wrong_number_of_cells",
        "wrong_number_of_cells",
        "not_utf8",
        {"a": "3", "b": "4"},
    ]
    path = file_with(tmp_path, "a.csv", content)
    assert rows_of(path) == expected
    assert [row.place for row in read_rows(path)][-1] == f"{path} row 7"


def test_csv_with_an_open_quote_names_the_cause(tmp_path: Path) -> None:
    path = file_with(tmp_path, "a.csv", "a,b\n1,2\n" + '"open,2\n' + "3,4\n" * 500)
    first, second = read_rows(path)
    assert first.value == {"a": "1", "b": "2"}
    assert isinstance(second.value, Unmappable)
    assert "is a quote not closed?" in second.value.detail


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no header"),
        (b"\n", "no header"),
        (b"a,b,a\n1,2,3\n", "two columns are named 'a'"),
        (b"gr\xf6\xdfe,b\n1,2\n", "header is not UTF-8"),
    ],
)
def test_csv_without_a_usable_header_is_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rows_of(file_with(tmp_path, "a.csv", content))


def test_csv_headers_may_have_blanks_and_unnamed_columns(tmp_path: Path) -> None:
    assert rows_of(file_with(tmp_path, "a.csv", " a ,,\n1,2,3\n")) == [{"a": "1", "": "3"}]


def test_a_given_delimiter_holds(tmp_path: Path) -> None:
    assert rows_of(file_with(tmp_path, "a.csv", "a:b,c\n1:2\n"), delimiter=":") == [{"a": "1", "b,c": "2"}]


def test_json_lines_are_objects_or_are_left_out(tmp_path: Path) -> None:
    content = (
        b'\xef\xbb\xbf{"a": 1}\n\n[1]\n"x"\n{"a": \n{"a": "\xff"}\nnull\n{"a": NaN, "b": 2}\n{"a": "\\ud800"}\n{"b": 3}'
    )
    found = rows_of(file_with(tmp_path, "a.jsonl", content))
    assert found[:6] == [{"a": 1}, "not_an_object", "not_an_object", "not_json", "not_json", "not_an_object"]
    assert found[6]["b"] == 2
    assert found[7:] == ["not_json", {"b": 3}]


def test_json_lines_of_extreme_size_or_depth_are_left_out(tmp_path: Path) -> None:
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    content = b"\n".join([b'{"a":"' + b"x" * (2 << 20) + b'"}', deep, b'{"a":' + b"9" * 6000 + b"}", b'{"b":1}'])
    found = rows_of(file_with(tmp_path, "a.jsonl", content))
    assert found[0] == "too_large"
    assert found[1] == "too_deep"
    assert found[3] == {"b": 1}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_json_arrays_are_read_element_by_element(tmp_path: Path, indent: int | None, mark: bytes) -> None:
    rows = [{"id": 2**63 + 5, "price": 9.5, "items": [{"id": "a"}], "none": None}, {"id": -(2**70), "ok": True}]
    content = mark + json.dumps([*rows, 3, None], indent=indent).encode()
    for name in ("a.json", "a.jsonl", "a.ndjson"):
        assert rows_of(file_with(tmp_path, name, content)) == [*rows, "not_an_object", "not_an_object"]


def test_a_broken_json_array_yields_what_comes_before_and_ends_with_an_error(tmp_path: Path) -> None:
    path = file_with(tmp_path, "a.json", b'[{"a": 1}, {"a": oops}]')
    rows = read_rows(path)
    assert next(rows).value == {"a": 1}
    with pytest.raises(InputError, match="not JSON after element 1"):
        next(rows)


def test_deep_elements_of_an_array_are_left_out(tmp_path: Path) -> None:
    content = b'[{"a":' + b"[" * 5000 + b"]" * 5000 + b'}, {"b": 1}]'
    assert rows_of(file_with(tmp_path, "a.json", content)) == ["too_deep", {"b": 1}]


def test_a_line_is_too_deep_by_its_bytes_alone(tmp_path: Path) -> None:
    def line(depth: int) -> bytes:
        return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    path = file_with(tmp_path, "a.jsonl", b"\n".join(map(line, (MAX_DEPTH, MAX_DEPTH + 1))))
    deepest, deeper = rows_of(path)
    assert (isinstance(deepest, dict), deeper) == (True, "too_deep")


@pytest.mark.parametrize("ending", [".gz", ".gzip", ".zst", ""])
@pytest.mark.parametrize("written", ["gzip", "zstd", "plain"])
def test_compression_is_known_by_content_whatever_the_name(tmp_path: Path, ending: str, written: str) -> None:
    content = b'{"a": 1}\n' * 1000
    compress = {"gzip": gzip.compress, "zstd": zstandard.compress, "plain": bytes}[written]
    path = file_with(tmp_path, f"a.jsonl{ending}", compress(content))
    assert rows_of(path) == [{"a": 1}] * 1000


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_what_cannot_be_read_is_one_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    folder = tmp_path / f"folder{name}"
    folder.mkdir()
    for path in (tmp_path / name, folder):
        with pytest.raises(InputError, match=str(path)):
            rows_of(path)
    cut = file_with(tmp_path, f"{name}.gz", gzip.compress(bytes(range(256)) * 1000)[:-20])
    with pytest.raises(InputError, match=str(cut)):
        rows_of(cut)


def test_a_window_too_large_for_memory_is_named_with_its_remedy(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    # A frame of known size needs no more memory than that; a stream needs its window.
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = file_with(tmp_path, "a.jsonl.zst", compressor.compress(b'{"a": 1}\n') + compressor.flush())
    with pytest.raises(InputError, match="compress it again without"):
        rows_of(path)


def test_a_name_without_meaning_needs_a_format(tmp_path: Path) -> None:
    path = file_with(tmp_path, "export.dat", "a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"input\.format"):
        rows_of(path)
    assert rows_of(path, file_format="csv") == [{"a": "1", "b": "2"}]


def test_utf16_json_lines_are_rejected_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="UTF-16"):
        rows_of(file_with(tmp_path, "a.jsonl", '{"a": 1}\n'.encode("utf-16")))


@pytest.mark.parametrize(
    ("name", "head", "filler"),
    [("a.csv", b"a,b\n", b"x" * 65536), ("a.csv", b'a,b\n"', b"x\n" * 32768), ("a.json", b'[{"a":[0', b",0" * 32768)],
)
def test_a_row_without_end_is_an_error_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, head: bytes, filler: bytes
) -> None:
    monkeypatch.setattr(prectr.stream.convert.rows, "_MAX_ROW_BYTES", 1 << 20)
    path = tmp_path / f"{name}.gz"
    with gzip.open(path, "wb") as file:
        file.write(head)
        for _ in range(64):
            file.write(filler)
    with pytest.raises(InputError, match="a row of more than 1 MiB"):
        rows_of(path)


def test_many_small_rows_may_exceed_the_limit_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prectr.stream.convert.rows, "_MAX_ROW_BYTES", 1 << 18)
    assert len(rows_of(file_with(tmp_path, "a.csv", "a,b\n" + "12345,67890\n" * 50_000))) == 50_000
    assert len(rows_of(file_with(tmp_path, "a.json", "[" + ",".join(['{"a": 12345}'] * 50_000) + "]"))) == 50_000


def test_progress_ends_at_the_size_of_the_file(tmp_path: Path) -> None:
    path = file_with(tmp_path, "a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 10_000))
    read: list[int] = []
    rows_of(path, on_bytes=read.append)
    assert read[-1] == path.stat().st_size
