"""The log readers: every line once, in order, from any line on, and an error wherever reading stops early."""

import contextlib
import gzip
import os
import random
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.state.errors import InputError
from prectr.stream.events.contract import MAX_EVENT_BYTES
from prectr.stream.readers import LogFile, open_log
from prectr.stream.readers.lines import split_lines

LINES = [b'{"n":%d,"x":"%s"}' % (n, os.urandom(20).hex().encode()) for n in range(3000)]
COMPRESS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def write(path: Path, lines: list[bytes], end: bytes = b"\n") -> Path:
    path.write_bytes(COMPRESS[path.suffix if path.suffix in COMPRESS else ""](b"\n".join(lines) + end))
    return path


def read(file: LogFile, start_line: int = 0, batch_lines: int = 4096) -> list[bytes]:
    lines: list[bytes] = []
    for batch in file.batches(start_line, batch_lines):
        assert batch.first_line == start_line + len(lines)
        assert 0 < len(batch.lines) <= batch_lines
        lines += batch.lines
    return lines


def read_until_error(file: LogFile) -> tuple[list[bytes], str]:
    lines: list[bytes] = []
    with pytest.raises(InputError) as caught:
        lines.extend(line for batch in file.batches(0, 100) for line in batch.lines)
    return lines, str(caught.value)


@pytest.mark.parametrize("end", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", ["log.jsonl", "log.ndjson", "log.json"])
def test_every_line_is_read_once_and_in_order(tmp_path: Path, name: str, end: str) -> None:
    (file,) = open_log([write(tmp_path / (name + end), LINES)])
    assert read(file, batch_lines=7) == LINES
    assert file.bytes_read == file.identity.size == (tmp_path / (name + end)).stat().st_size


@pytest.mark.parametrize("end", ["", ".gz", ".zst"])
@pytest.mark.parametrize("start", [0, 1, 2999, 3000])
def test_reading_resumes_at_the_line_where_it_stopped(tmp_path: Path, end: str, start: int) -> None:
    (file,) = open_log([write(tmp_path / f"log.jsonl{end}", LINES)])
    assert read(file, start, 1000) == LINES[start:]


@pytest.mark.parametrize("end", ["", ".gz", ".zst"])
def test_a_file_that_has_become_shorter_than_what_was_read_of_it_is_an_error(tmp_path: Path, end: str) -> None:
    (file,) = open_log([write(tmp_path / f"log.jsonl{end}", LINES[:5])])
    with pytest.raises(InputError, match="has 5 lines, but 6 of it had been read"):
        read(file, 6)


def test_the_last_line_needs_no_line_feed_and_blank_lines_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"a\n\n b\r\n\nc")
    assert read(LogFile(path)) == [b"a", b"", b" b\r", b"", b"c"]
    path.write_bytes(b"a\n\n")
    assert read(LogFile(path)) == [b"a", b""]


def test_a_byte_order_mark_is_not_part_of_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}\n")
    assert read(LogFile(tmp_path / "log.jsonl")) == [b"{}", b"\xef\xbb\xbf{}"]


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz", "log.jsonl.zst", "log.parquet"])
def test_an_empty_file_has_no_events(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert read(LogFile(tmp_path / name)) == []


@given(
    st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=30),
    st.lists(st.integers(1, 40), min_size=1, max_size=10),
    st.booleans(),
)
def test_lines_do_not_depend_on_where_blocks_end(lines: list[bytes], splits: list[int], ended: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    blocks = []
    rest = data
    for split in splits:
        blocks.append(rest[:split])
        rest = rest[split:]
    blocks.append(rest)
    got = [line for part in split_lines(block for block in blocks if block) for line in part]
    expected = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if blocks[0][:3] != b"\xef\xbb\xbf" and data[:3] == b"\xef\xbb\xbf":
        return  # A mark split over blocks cannot come from a file: the first block has 1 MiB.
    assert got == (expected if expected[-1] else expected[:-1])


@pytest.mark.parametrize("end", ["", ".gz", ".zst"])
@pytest.mark.parametrize("size", [MAX_EVENT_BYTES - 1, MAX_EVENT_BYTES, MAX_EVENT_BYTES + 1, 5 * MAX_EVENT_BYTES])
def test_only_the_beginning_of_a_too_long_line_is_buffered(tmp_path: Path, end: str, size: int) -> None:
    lines = [b"before", b"x" * size, b"after"]
    (file,) = open_log([write(tmp_path / f"log.jsonl{end}", lines)])
    assert read(file) == [b"before", b"x" * min(size, MAX_EVENT_BYTES + 1), b"after"]


def test_a_batch_is_bounded_in_bytes(tmp_path: Path) -> None:
    lines = [b"x" * (MAX_EVENT_BYTES - 1)] * 80
    sizes = [sum(map(len, batch.lines)) for batch in LogFile(write(tmp_path / "a.jsonl", lines)).batches(0, 4096)]
    assert sum(sizes) == 80 * (MAX_EVENT_BYTES - 1)
    assert max(sizes) <= 40 * MAX_EVENT_BYTES


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_more_than_one_member_or_frame_is_read(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"log.jsonl{end}"
    halves = [COMPRESS[end](b"\n".join(part) + b"\n") for part in (LINES[:1000], LINES[1000:])]
    path.write_bytes(b"".join(halves) + (b"\0" * 9000 if end == ".gz" else b""))
    assert read(LogFile(path)) == LINES


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_a_truncated_file_gives_its_lines_and_then_an_error_that_names_the_offset(
    tmp_path: Path, end: str, share: float
) -> None:
    path = write(tmp_path / f"log.jsonl{end}", LINES)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    lines, message = read_until_error(LogFile(path))
    assert lines == LINES[: len(lines)]
    if end == ".gz":
        # What zlib decodes of the same bytes.
        assert lines == zlib.decompressobj(31).decompress(path.read_bytes()).split(b"\n")[:-1]
    assert str(path) in message
    assert "cut off" in message
    assert f"the {len(lines)} lines before" in message


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_a_corrupt_file_gives_the_lines_before_the_corruption_and_then_an_error(tmp_path: Path, end: str) -> None:
    path = write(tmp_path / f"log.jsonl{end}", LINES)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(whole)
    lines, message = read_until_error(LogFile(path))
    assert "corrupt near byte" in message
    if end == ".gz":
        assert len(lines) > 1000
        assert lines[:1000] == LINES[:1000]
    else:
        assert lines == LINES[: len(lines)]


@pytest.mark.parametrize("end", [".gz", ".zst"])
@pytest.mark.parametrize("data", [b"\x00{}\n", b"x", b"type,ts\n" * 1000])
def test_what_is_neither_compressed_nor_json_is_an_error_that_names_the_file(
    tmp_path: Path, end: str, data: bytes
) -> None:
    path = tmp_path / f"log.jsonl{end}"
    path.write_bytes(data)
    lines, message = read_until_error(LogFile(path))
    assert lines == []
    assert str(path) in message


@pytest.mark.parametrize("end", ["", ".gz", ".zst"])
@pytest.mark.parametrize("content", ["", ".gz", ".zst"])
def test_compression_is_known_by_content_whatever_the_name_says(tmp_path: Path, end: str, content: str) -> None:
    path = tmp_path / f"log.jsonl{end}"
    path.write_bytes(COMPRESS[content](b"\n".join(LINES) + b"\n"))
    assert read(LogFile(path)) == LINES


def test_bytes_after_the_end_of_compressed_data_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl.gz", LINES)
    path.write_bytes(path.read_bytes() + b"garbage")
    lines, message = read_until_error(LogFile(path))
    assert lines == LINES
    assert "corrupt near byte" in message


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_no_mutation_of_a_compressed_file_ends_in_anything_but_lines_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = random.Random(seed)
    end = rng.choice([".gz", ".zst"])
    data = bytearray(COMPRESS[end](b"\n".join(LINES[:200]) + b"\n"))
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path = tmp_path_factory.mktemp("mutated") / f"log.jsonl{end}"
    path.write_bytes(data[: rng.randrange(len(data) + 1)])
    with contextlib.suppress(InputError):
        read(LogFile(path))


def test_a_read_error_names_the_file_and_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> object:
        yield b"one\ntwo\nthr"
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("prectr.stream.readers.logfile._BLOCK_READERS", {"plain": failing})
    lines, message = read_until_error(LogFile(write(tmp_path / "log.jsonl", [b"one"])))
    assert lines == [b"one", b"two"]
    assert "Input/output error; the 2 lines before" in message


def test_the_identity_of_a_file_is_its_path_size_and_beginning(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", LINES)
    (tmp_path / "link.jsonl").symlink_to(path)
    before = LogFile(path).identity
    assert LogFile(tmp_path / "link.jsonl").identity == before
    assert before.size == path.stat().st_size
    changed = bytearray(path.read_bytes())
    changed[100] ^= 1
    path.write_bytes(changed)
    assert LogFile(path).identity != before
