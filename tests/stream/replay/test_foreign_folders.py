"""Run folders that are read-only, active, of another command, or on file systems of their own."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from prectr.state.errors import CheckpointError, PrectrError, Remedy
from prectr.state.read_only_view import read_live_store
from prectr.stream.join.state import META_KEY
from prectr.stream.replay.run_checkpoint import list_checkpoints, restore_stores
from prectr.stream.replay.verify import read_newest, verify
from testkit.command import write_log
from tests.kit.stages.events import MINUTE, T, click, page
from tests.kit.stages.replays import replay_to_end


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    log = write_log(
        tmp_path / "log.jsonl", [page("r1", "u", T), click("r1", "u", T + 1000), page("r2", "u", T + MINUTE)]
    )
    replay_to_end([log], tmp_path / "run", checkpoint_interval=0)
    return tmp_path / "run"


@pytest.mark.skipif(os.geteuid() != 0, reason="files of another user need root")
def test_a_run_folder_that_only_another_user_can_write_to_can_be_verified_and_looked_up(run_dir: Path) -> None:
    """Root may write to read-only folders, so the commands run without its capabilities."""
    for path in (run_dir, *run_dir.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    code = (
        "import os, sys; from pathlib import Path; import prectr.stream.replay.verify as v, "
        "prectr.stream.serving.query_lookup as q; os.chdir('/'); os.setgid(65534); os.setuid(65534); "
        "run = Path(sys.argv[1]); assert not os.access(run, os.W_OK); "
        "assert all(check.holds for check in v.verify(run)); print(q.look_up_query(run, 'usb cable').totals)"
    )
    for parent in run_dir.parents:
        if parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o055)
    command = [sys.executable, "-c", code, str(run_dir)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(")


def test_reading_a_run_writes_nothing_to_it(run_dir: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in run_dir.rglob("*"))
    verify(run_dir)
    assert sorted((path, path.stat().st_mtime_ns) for path in run_dir.rglob("*")) == before


def test_a_checkpoint_that_the_run_deletes_meanwhile_is_left_for_the_newest(run_dir: Path) -> None:
    checkpoints = run_dir / "checkpoints"
    newest = list_checkpoints(checkpoints)[0]
    seen = []

    def read(folder: Path, _: object) -> str:
        seen.append(folder)
        if folder == newest:
            newest.rename(checkpoints / f"{int(newest.name) + 1:08d}")
            raise FileNotFoundError(folder)
        return folder.name

    assert read_newest(run_dir, read)[1] == f"{int(newest.name) + 1:08d}"
    assert len(seen) == 2


def test_a_checkpoint_that_is_there_and_cannot_be_read_is_an_error(run_dir: Path) -> None:
    def read(folder: Path, _: object) -> None:
        raise FileNotFoundError(folder)

    with pytest.raises(FileNotFoundError):
        read_newest(run_dir, read)


def test_a_live_trainers_checkpoint_is_named_as_such_and_nobody_is_told_to_delete_it(run_dir: Path) -> None:
    manifest = list_checkpoints(run_dir / "checkpoints")[0] / "checkpoint.json"
    live = {"format": 1, "config": {}, "topic": "training-examples", "digest": {}, "seconds": 1.0}
    manifest.write_text(json.dumps(live))
    with pytest.raises(CheckpointError, match="not the checkpoint of a replay, but of another command") as told:
        verify(run_dir)
    assert "delete" not in str(told.value)
    assert told.value.remedies == (Remedy.OTHER_RUN_DIR,)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"lines_read": ', '"lines_read": -'),
        lambda text: text.replace('"dead_letter_bytes": ', '"dead_letter_bytes": -1'),
        lambda text: "[" * 100_000,
        lambda text: text.replace('"config": {', '"config": {"x": ' + "[" * 100_000 + ","),
    ],
    ids=["negative lines", "negative bytes", "nested", "nested within"],
)
def test_a_checkpoint_with_impossible_counts_or_nesting_is_named_and_the_one_before_offered(
    damage: Callable[[str], str], run_dir: Path
) -> None:
    manifest = list_checkpoints(run_dir / "checkpoints")[0] / "checkpoint.json"
    text = manifest.read_text()
    assert damage(text) != text
    manifest.write_text(damage(text))
    with pytest.raises(CheckpointError, match=r"checkpoint\.json: the checkpoint cannot be read .*delete the folder"):
        verify(run_dir)


def test_state_that_cannot_be_deleted_or_linked_to_is_filled_with_copies(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where `state` is a mount point: the folder stays, and links to another file system do not work."""
    checkpoint = list_checkpoints(run_dir / "checkpoints")[0]
    state = run_dir / "state"
    (state / "join-7").mkdir()
    (state / "notes").mkdir()
    rmtree = shutil.rmtree

    def refuse(path: Path, *args: object, **options: object) -> None:
        if Path(path) == state:
            raise OSError(errno.EBUSY, "Device or resource busy")
        rmtree(path)

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    monkeypatch.setattr(os, "link", no_links)
    restore_stores(checkpoint, state)
    names = {str(path.relative_to(state)) for path in state.rglob("*.sst")}
    assert names
    assert names == {str(path.relative_to(checkpoint / "state")) for path in (checkpoint / "state").rglob("*.sst")}
    assert all((state / name).stat().st_nlink == 1 for name in names)
    assert not (state / "join-7").exists()
    assert (state / "notes").is_dir()


def test_without_a_temporary_folder_it_is_said(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "mkdtemp", none)
    store = list_checkpoints(run_dir / "checkpoints")[0] / "state" / "join-0"
    with pytest.raises(PrectrError, match=r"there is no usable temporary folder .*: set TMPDIR"):
        read_live_store(store, [META_KEY])
