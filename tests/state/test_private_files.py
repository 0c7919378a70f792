"""What a run writes is private to its user, and no link that somebody has put there is followed."""

import os
import stat
from pathlib import Path

import pytest

from prectr.state.errors import PrectrError, StateError
from prectr.state.lock import FolderLock
from prectr.state.private_files import make_private_folder, open_private_file
from prectr.state.store import Store
from prectr.stream.sinks.dead_letters import DeadLetter, DeadLetterFile


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
