"""Files that change while they are read: they may grow; anything else is an error that names them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prectr.state.errors import InputError
from prectr.stream.readers import LogFile

LINES = [b"line %06d" % number for number in range(40_000)]
CONTENT = b"".join(line + b"\n" for line in LINES)


def read_changed_after_the_first_chunk(path: Path, change: Callable[[Path], object]) -> list[bytes]:
    file = LogFile(path)
    chunks = file.chunks(block_bytes=1 << 16)
    lines = next(chunks)
    change(path)
    for chunk in chunks:
        lines += chunk
    return lines


def cut_short(path: Path) -> None:
    os.truncate(path, 200_005)


def rewritten(path: Path) -> None:
    path.write_bytes(bytes(reversed(CONTENT)))
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(("change", "said"), [(cut_short, "cut short while it was read"), (rewritten, "rewritten")])
def test_a_file_that_is_changed_while_it_is_read_is_an_error(
    tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(CONTENT)
    with pytest.raises(InputError, match=rf"log\.jsonl: it was .*{said}|log\.jsonl: it was {said}"):
        read_changed_after_the_first_chunk(path, change)


def test_another_file_in_its_place_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prectr.stream.readers.raw_file._MAX_OPEN", 1)
    path, other = tmp_path / "log.jsonl", tmp_path / "other.jsonl"
    path.write_bytes(CONTENT)
    other.write_bytes(CONTENT)

    def replace(path: Path) -> None:
        next(LogFile(other).chunks())  # Another file is read meanwhile, so that this one is closed.
        os.replace(other, path)

    with pytest.raises(InputError, match="another file took its place"):
        read_changed_after_the_first_chunk(path, replace)


def test_a_file_may_grow_and_may_be_removed_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(CONTENT)

    def grow(path: Path) -> None:
        with path.open("ab") as file:
            file.write(b"more\n")

    assert read_changed_after_the_first_chunk(path, grow) == [*LINES, b"more"]
    assert read_changed_after_the_first_chunk(path, Path.unlink) == [*LINES, b"more"]


def test_a_last_line_that_is_still_written_is_left_out_on_request(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"one\ntwo\nthr")
    file = LogFile(path)
    assert [line for chunk in file.chunks(whole_lines=True) for line in chunk] == [b"one", b"two"]
    assert file.has_unfinished_line
    assert [line for chunk in file.chunks() for line in chunk] == [b"one", b"two", b"thr"]
    assert not file.has_unfinished_line
    path.write_bytes(b"one\ntwo\nthree\n")
    file = LogFile(path)
    assert [line for chunk in file.chunks(2, whole_lines=True) for line in chunk] == [b"three"]
    assert not file.has_unfinished_line
