"""The folder lock: one process at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from prectr.state.errors import StateError
from prectr.state.lock import FolderLock

REPOSITORY = Path(__file__).parents[2]
TAKES = (
    "import sys; from pathlib import Path; "
    "from prectr.state.lock import FolderLock; from prectr.state.errors import StateError\n"
    "try: lock = FolderLock(Path(sys.argv[1]))\n"
    "except StateError as error: print(error); sys.exit(3)\n"
    "print('taken', flush=True); sys.stdin.readline()"
)


def another_process(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", TAKES, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_makes_the_folder_and_lets_it_go_again(tmp_path: Path) -> None:
    for _ in range(2):
        FolderLock(tmp_path / "a" / "b").release()
    assert (tmp_path / "a" / "b").is_dir()


def test_a_second_lock_is_rejected_until_the_first_is_released(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with pytest.raises(StateError, match="another process is using it: stop that one first"):
        FolderLock(tmp_path)
    first.release()
    FolderLock(tmp_path).release()


def test_another_process_is_rejected_by_name(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    process = another_process(tmp_path)
    said, _ = process.communicate()
    assert process.returncode == 3
    assert str(tmp_path) in said
    lock.release()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    process = another_process(tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    with pytest.raises(StateError):
        FolderLock(tmp_path)
    process.kill()
    process.communicate()
    FolderLock(tmp_path).release()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"cannot be written: (Not a directory|File exists)"):
        FolderLock(tmp_path / "file")
    with pytest.raises(StateError, match="cannot be written"):
        FolderLock(tmp_path / "file" / "below")
