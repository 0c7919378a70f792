"""The examples file: the content of a line, and truncation to the length at a checkpoint."""

import gzip
import json
from pathlib import Path

import msgspec
import pytest

from prectr.state.aggregates import NO_SUMS
from prectr.state.errors import PrectrError
from prectr.stream.events.contract import Item, ResultPage
from prectr.stream.records import Example, encode_record
from prectr.stream.sinks.example_file import ExampleFile, example_line

NOTHING = msgspec.Raw(b"\x90")


def example(number: int = 0, items: int = 2) -> Example:
    page = ResultPage(f"r{number}", "u", "Ünï\n", 5, [Item(f"i{index}", position=index + 1) for index in range(items)])
    return Example(
        closes_at=9,
        request_id=f"r{number}",
        user_id="u",
        ts=5,
        query="ünï",
        labels=b"\1" + b"\0" * (items - 1),
        levels=b"\4" + b"\2" * (items - 1),
        user_activity=number,
        user_stats=(1, 2, 3, 4, 0, 0, 1, 2),
        query_stats=(9, 0, 0, 8, 7, 0, 0, 6),
        query_decayed=(NO_SUMS,) * 3,
        history=NOTHING,
        query_clicks=NOTHING,
        page=msgspec.Raw(encode_record(page)),
    )


def read(path: Path) -> list[int]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line)["user_activity"] for line in data.splitlines()]


def test_a_line_has_the_fields_that_design_names() -> None:
    line = json.loads(msgspec.json.encode(example_line(example(3))))
    assert line == {
        "request_id": "r3",
        "user_id": "u",
        "query": "ünï",
        "ts": 5,
        "items": [{"item_id": "i0", "click": 1, "relevance": 4}, {"item_id": "i1", "click": 0, "relevance": 2}],
        "query_stats": {"1": [9, 7], "2": [0, 0], "3": [0, 0], "4": [8, 6]},
        "user_stats": {"1": [1, 0], "2": [2, 0], "3": [3, 1], "4": [4, 2]},
        "user_activity": 3,
    }


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_every_reported_length_is_a_complete_file_to_resume_from(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    file, lengths = ExampleFile(path), [(0, 0)]
    for number in range(9):
        file.write(example(number))
        if number % 3 == 2:
            lengths.append((file.flush(), number + 1))
            assert path.stat().st_size == lengths[-1][0]
            assert read(path) == list(range(number + 1))
    file.close()
    whole = path.read_bytes()
    for length, count in reversed(lengths):
        again = ExampleFile(path, length)
        again.close()
        assert path.read_bytes() == whole[:length]
        assert count == 0 or read(path) == list(range(count))
    again = ExampleFile(path, 0)
    for number in range(9):
        again.write(example(number))
        if number % 3 == 2:
            again.flush()
    again.close()
    assert path.read_bytes() == whole


def test_content_beyond_the_length_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old\nolder\n")
    file = ExampleFile(path, 4)
    file.write(example(1))
    file.close()
    assert path.read_bytes().startswith(b"old\n{")
    assert b"older" not in path.read_bytes()


def test_flushing_nothing_adds_nothing(tmp_path: Path) -> None:
    file = ExampleFile(tmp_path / "out.jsonl.gz")
    file.write(example())
    assert file.flush() == file.flush() == (tmp_path / "out.jsonl.gz").stat().st_size


def test_memory_is_bounded_by_the_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prectr.stream.sinks.example_file._BUFFER", 2000)
    path = tmp_path / "out.jsonl"
    file = ExampleFile(path)
    for number in range(50):
        file.write(example(number))
        assert sum(map(len, file._lines)) <= 2000
    assert path.stat().st_size > 2000
    file.close()
    assert read(path) == list(range(50))


def test_a_file_shorter_than_the_run_had_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"abc")
    with pytest.raises(PrectrError, match=r"out\.jsonl: has 3 bytes, but the run had written 4: put the original"):
        ExampleFile(path, 4)
    assert path.read_bytes() == b"abc"


def test_a_path_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PrectrError, match="the examples cannot be written: Is a directory"):
        ExampleFile(tmp_path)


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ExampleFile(tmp_path / "out.jsonl")
    with open("/dev/full", "r+b", buffering=0) as full:
        monkeypatch.setattr(file, "_file", full)
        file.write(example())
        with pytest.raises(PrectrError, match=r"out\.jsonl: the examples cannot be written: No space left on device"):
            file.flush()
