"""Dead letters: bytes, location and reason are kept, and resuming truncates what came after the checkpoint."""

import errno
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.state.errors import PrectrError, StateError
from prectr.stream.sinks.dead_letters import DeadLetter, DeadLetterFile


def dead_letter(value: bytes, offset: int = 0) -> DeadLetter:
    return DeadLetter(value, "log.jsonl", 0, offset, "not_json", "a detail\nin two lines")


def read(path: Path) -> list[DeadLetter]:
    return [msgspec.json.decode(line, type=DeadLetter) for line in path.read_bytes().splitlines()]


@given(st.binary(), st.text(st.characters(exclude_categories=("Cs",))), st.integers(0, 2**62))
def test_a_dead_letter_is_one_line_that_preserves_every_byte(value: bytes, text: str, offset: int) -> None:
    whole = DeadLetter(value, text, 3, offset, "not_utf8", text)
    line = msgspec.json.encode(whole)
    assert b"\n" not in line
    assert msgspec.json.decode(line, type=DeadLetter) == whole


def test_dead_letters_are_appended_in_order_and_counted_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "dead-letters.jsonl"
    file = DeadLetterFile(path)
    letters = [dead_letter(os.urandom(1000), offset) for offset in range(3000)]
    for one in letters:
        file.append(one)
    length = file.length
    assert file.flush() == length == path.stat().st_size
    file.close()
    assert read(path) == letters


def test_a_resumed_file_is_truncated_to_its_length_at_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "dead-letters.jsonl"
    file = DeadLetterFile(path)
    file.append(dead_letter(b"kept"))
    at_cut = file.flush()
    file.append(dead_letter(b"taken back"))
    file.close()
    again = DeadLetterFile(path, at_cut)
    assert again.length == at_cut
    again.append(dead_letter(b"after"))
    again.close()
    assert [one.value for one in read(path)] == [b"kept", b"after"]
    DeadLetterFile(path, 0).close()
    assert read(path) == []


def test_a_file_that_has_lost_dead_letters_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "dead-letters.jsonl"
    path.write_bytes(b"short")
    with pytest.raises(StateError, match=r"has 5 bytes, but the run had written 9.*start the run over"):
        DeadLetterFile(path, 9)
    assert path.read_bytes() == b"short"


@pytest.mark.parametrize("call", ["append", "flush", "close", "sync"])
def test_a_full_disk_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "dead-letters.jsonl"
    file = DeadLetterFile(path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync" if call == "sync" else "write", full)
    file.append(dead_letter(b"x"))
    calls = {"append": lambda: file.append(dead_letter(b"x" * 2_000_000)), "close": file.close}
    with pytest.raises(PrectrError, match=r"dead-letters\.jsonl cannot be written: No space left.*again"):
        calls.get(call, file.flush)()


def test_an_unwritable_path_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(PrectrError, match="cannot be written"):
        DeadLetterFile(tmp_path / "missing" / "dead-letters.jsonl")


def test_a_device_without_room_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(PrectrError, match="full cannot be written"):
        DeadLetterFile(tmp_path / "full")
