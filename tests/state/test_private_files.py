"""What a run writes is private to its user, and no link that somebody has put there is followed."""

import os
import resource
import stat
from pathlib import Path

import pytest

from prectr.state.errors import PrectrError, StateError
from prectr.state.lock import FolderLock
from prectr.state.private_files import (
    make_empty_private_folder,
    make_private,
    make_private_folder,
    open_private_file,
    write_private_file,
)
from prectr.state.store import Store
from prectr.stream.sinks.dead_letters import DeadLetter, DeadLetterFile
from prectr.stream.sinks.example_file import ExampleFile


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def usual_umask() -> None:
    os.umask(0o022)


def test_folders_and_files_that_are_made_are_private_and_others_stay_as_they_are(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir(mode=0o755)
    FolderLock(given).release()
    assert mode(given) == 0o755
    FolderLock(tmp_path / "new" / "run").release()
    assert mode(tmp_path / "new" / "run") == 0o700
    assert mode(tmp_path / "new" / "run" / ".lock") == 0o600
    Store(tmp_path / "state" / "join-0").close()
    assert mode(tmp_path / "state") == 0o700


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("content")
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").symlink_to(target)
    with pytest.raises(StateError, match=r"\.lock: is a symbolic link, and is not followed: delete it"):
        FolderLock(run)
    assert target.read_text() == "content"


def test_dead_letters_are_not_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("content")
    (tmp_path / "dead-letters.jsonl").symlink_to(target)
    with pytest.raises(PrectrError, match="cannot be written"):
        DeadLetterFile(tmp_path / "dead-letters.jsonl")
    assert target.read_text() == "content"


def test_dead_letters_hold_what_users_sent_and_are_private(tmp_path: Path) -> None:
    file = DeadLetterFile(tmp_path / "dead-letters.jsonl")
    file.append(DeadLetter(b"secret", "log.jsonl", 0, 0, "not_json", "malformed"))
    file.close()
    assert mode(tmp_path / "dead-letters.jsonl") == 0o600


def test_a_file_and_a_folder_that_exist_are_opened_and_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "file").chmod(0o644)
    descriptor = open_private_file(tmp_path / "file")
    assert os.read(descriptor, 10) == b"abc"
    os.close(descriptor)
    assert mode(tmp_path / "file") == 0o644
    make_private_folder(tmp_path)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_what_is_written_is_private_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    os.umask(umask)
    make_empty_private_folder(tmp_path / "above" / "folder")
    write_private_file(tmp_path / "above" / "folder" / "file", b"1")
    assert mode(tmp_path / "above") == mode(tmp_path / "above" / "folder") == 0o700
    assert mode(tmp_path / "above" / "folder" / "file") == 0o600


def test_everything_in_a_folder_is_made_private(tmp_path: Path) -> None:
    os.umask(0)
    (tmp_path / "made" / "inner").mkdir(parents=True)
    (tmp_path / "made" / "inner" / "file").write_text("content")
    make_private(tmp_path / "made")
    assert [mode(tmp_path / "made" / each) for each in ("", "inner", "inner/file")] == [0o700, 0o700, 0o600]


def test_a_link_in_the_place_of_a_folder_or_file_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("content")
    (tmp_path / "folder").symlink_to(precious)
    make_empty_private_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").is_symlink()
    (tmp_path / "link").symlink_to(precious / "file")
    with pytest.raises(OSError, match=r"symbolic links.*link"):
        write_private_file(tmp_path / "link", b"other")
    assert (precious / "file").read_text() == "content"


def test_a_file_that_reaches_the_limit_on_sizes_is_named(tmp_path: Path) -> None:
    """As by `ulimit -f`; the error of the system names no file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            write_private_file(tmp_path / "large", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(tmp_path / "large")


def test_the_spool_of_an_examples_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / "spool").symlink_to(tmp_path / "precious")
    with pytest.raises(PrectrError, match="cannot be written"):
        ExampleFile(tmp_path / "examples.parquet", tmp_path / "spool")
    assert (tmp_path / "precious").read_text() == "content"
