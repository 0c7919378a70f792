"""The examples file: the content of a line, and truncation to the length at a checkpoint."""

import gzip
import json
from pathlib import Path

import msgspec
import pytest
import zstandard

from prectr.state.aggregates import NO_SUMS
from prectr.state.errors import PrectrError
from prectr.stream.events.contract import Item, ResultPage
from prectr.stream.records import Example, encode_record
from prectr.stream.sinks.example_file import ExampleFile
from prectr.stream.sinks.example_line import NO_SCORES, example_line
from prectr.stream.sinks.written_examples import read_examples

T = 1_700_000_000_000
NOTHING = msgspec.Raw(b"\x90")


def example(number: int = 0, items: int = 2, page: ResultPage | None = None) -> Example:
    plain = ResultPage(f"r{number}", "u", "Ünï\n", T, [Item(f"i{index}", position=index + 1) for index in range(items)])
    return Example(
        closes_at=9,
        request_id=f"r{number}",
        user_id="u",
        ts=T,
        query="ünï",
        labels=b"\1" + b"\0" * (items - 1),
        levels=b"\4" + b"\2" * (items - 1),
        user_activity=number,
        user_stats=(1, 2, 3, 4, 0, 0, 1, 2),
        query_stats=(9, 0, 0, 8, 7, 0, 0, 6),
        query_decayed=(NO_SUMS, NO_SUMS, (0.0, 0.5, 0.0, 0.0, 0.0, 0.25, 0.0, 0.0)),
        history=NOTHING,
        query_clicks=NOTHING,
        page=msgspec.Raw(encode_record(page or plain)),
    )


FULL = ResultPage(
    "r7",
    "u",
    "Ünï\n",
    T,
    [
        Item("i0", "Title", 4, 9.5, "cat", "brand", 3, {"margin": 2.0, "colour": "red"}),
        Item("i1", position=1, features={}),
    ],
    context={"device": "phone"},
    features={"hits": 100.0},
)


def opened(path: Path, length: int = 0) -> ExampleFile:
    return ExampleFile(path, path.with_name("spool.jsonl.zst"), length)


def decompressed(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            return reader.read()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def read(path: Path) -> list[int]:
    return [json.loads(line)["user_activity"] for line in decompressed(path).splitlines()]


def test_a_line_has_the_stated_fields_and_then_all_others() -> None:
    line = json.loads(msgspec.json.encode(example_line(example(3), NO_SCORES)))
    nothing = {str(level): [0, 0] for level in (1, 2, 3, 4)}
    assert line == {
        "request_id": "r3",
        "user_id": "u",
        "query": "ünï",
        "ts": T,
        "items": [
            {"item_id": "i0", "click": 1, "relevance": 4, "position": 1},
            {"item_id": "i1", "click": 0, "relevance": 2, "position": 2},
        ],
        "query_stats": {"1": [9, 7], "2": [0, 0], "3": [0, 0], "4": [8, 6]},
        "user_stats": {"1": [1, 0], "2": [2, 0], "3": [3, 1], "4": [4, 2]},
        "user_activity": 3,
        "closes_at": 9,
        "query_decayed": [nothing, nothing, {**nothing, "2": [0.5, 0.25]}],
        "query_as_typed": "Ünï\n",
    }
    assert list(line)[:8] == [
        "request_id", "user_id", "query", "ts", "items", "query_stats", "user_stats", "user_activity"
    ]  # fmt: skip


def test_what_the_log_has_of_page_and_items_and_the_scores_are_in_the_line() -> None:
    scores = {"lr": [0.25, 0.5], "dnn": [0.125, 0.75]}
    line = json.loads(msgspec.json.encode(example_line(example(page=FULL), scores)))
    assert line["items"] == [
        {
            "item_id": "i0",
            "click": 1,
            "relevance": 4,
            "position": 3,
            "title": "Title",
            "price": 9.5,
            "category": "cat",
            "brand": "brand",
            "features": {"margin": 2.0, "colour": "red"},
            "scores": {"lr": 0.25, "dnn": 0.125},
        },
        {
            "item_id": "i1",
            "click": 0,
            "relevance": 2,
            "position": 1,
            "features": {},
            "scores": {"lr": 0.5, "dnn": 0.75},
        },
    ]
    assert (line["context"], line["features"]) == ({"device": "phone"}, {"hits": 100.0})


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst"])
def test_every_reported_length_is_a_complete_file_to_resume_from(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    file, lengths = opened(path), [(0, 0)]
    for number in range(9):
        file.write(example(number), NO_SCORES)
        if number % 3 == 2:
            lengths.append((file.flush(), number + 1))
            assert path.stat().st_size == lengths[-1][0]
            assert read(path) == list(range(number + 1))
    file.close()
    whole = path.read_bytes()
    for length, count in reversed(lengths):
        opened(path, length).close()
        assert path.read_bytes() == whole[:length]
        assert count == 0 or read(path) == list(range(count))
    again = opened(path, 0)
    for number in range(9):
        again.write(example(number), NO_SCORES)
        if number % 3 == 2:
            again.flush()
    again.close()
    assert path.read_bytes() == whole


def test_a_parquet_file_has_the_lines_and_resumes_from_its_spool(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    pages = [example(number, page=FULL if number % 2 else None) for number in range(2500)]
    scores = [{"lr": [number / 7, 1e-300], "wide-deep+": [0.1, 0.2]} if number < 2400 else {} for number in range(2500)]
    lines = [example_line(one, its) for one, its in zip(pages, scores, strict=True)]
    file = opened(path)
    for one, its in zip(pages[:1500], scores, strict=False):
        file.write(one, its)
    length = file.flush()
    for one in pages[:7]:
        file.write(one, NO_SCORES)
    file.finish()
    file.close()
    assert len(list(read_examples(path))) == 1507
    file = opened(path, length)
    for one, its in zip(pages[1500:], scores[1500:], strict=True):
        file.write(one, its)
    file.finish()
    file.close()
    assert list(read_examples(path)) == lines
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.parquet", "spool.jsonl.zst"]


def test_content_beyond_the_length_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old\nolder\n")
    file = opened(path, 4)
    file.write(example(1), NO_SCORES)
    file.close()
    assert path.read_bytes().startswith(b"old\n{")
    assert b"older" not in path.read_bytes()


def test_flushing_nothing_adds_nothing(tmp_path: Path) -> None:
    file = opened(tmp_path / "out.jsonl.gz")
    file.write(example(), NO_SCORES)
    assert file.flush() == file.flush() == (tmp_path / "out.jsonl.gz").stat().st_size


def test_memory_is_bounded_by_the_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prectr.stream.sinks.example_file._BUFFER", 2000)
    path = tmp_path / "out.jsonl"
    file = opened(path)
    for number in range(50):
        file.write(example(number), NO_SCORES)
        assert sum(map(len, file._lines)) <= 2000
    assert path.stat().st_size > 2000
    file.close()
    assert read(path) == list(range(50))


def test_a_file_shorter_than_the_run_had_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"abc")
    with pytest.raises(PrectrError, match=r"out\.jsonl: has 3 bytes, but the run had written 4: put the original"):
        opened(path, 4)
    assert path.read_bytes() == b"abc"


def test_a_path_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PrectrError, match="the examples cannot be written: Is a directory"):
        opened(tmp_path)


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(tmp_path / "out.jsonl")
    with open("/dev/full", "r+b", buffering=0) as full:
        monkeypatch.setattr(file, "_file", full)
        file.write(example(), NO_SCORES)
        with pytest.raises(PrectrError, match=r"out\.jsonl: the examples cannot be written: No space left on device"):
            file.flush()
