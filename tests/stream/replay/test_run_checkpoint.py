"""Checkpoints: complete or absent, the newest complete one, and the error of a corrupt one."""

import json
import os
import resource
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from prectr.state.errors import CheckpointError, Remedy, TrainingError, UsageError
from prectr.state.store import Store
from prectr.stream.records import Example
from prectr.stream.replay.run_checkpoint import (
    CHECKPOINT_FORMAT,
    CheckpointWriter,
    LogFileProgress,
    ReplayCheckpoint,
    check_config,
    list_checkpoints,
    load_sinks,
    read_checkpoint,
    restore_stores,
)
from prectr.stream.sinks.run_digest import RunDigestState


def manifest(lines_read: int = 0) -> ReplayCheckpoint:
    return ReplayCheckpoint(
        config={"partitions": "2"},
        files=[LogFileProgress("log.jsonl", 10, "abc", "ab", lines_read, done=True)],
        lines_read=lines_read,
        digest=RunDigestState("00", "11", 1, 2, 3),
        examples_bytes=None,
        dead_letter_bytes=4,
        dead_letters={"blank": 1},
        seconds=1.5,
    )


def write_checkpoint(folder: Path, lines_read: int) -> Path:
    writer = CheckpointWriter(folder)
    (writer.staging / "sinks").mkdir()
    (writer.staging / "sinks" / "state").write_text(str(lines_read))
    return writer.commit(manifest(lines_read))


def test_a_checkpoint_reads_back_as_it_was_written(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoints", 7)
    assert folder.name == "00000001"
    assert read_checkpoint(folder) == manifest(7)
    assert (folder / "sinks" / "state").read_text() == "7"


def test_where_there_is_no_folder_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "checkpoints") == []


def test_the_newest_two_are_kept_and_the_newest_comes_first(tmp_path: Path) -> None:
    for lines_read in range(12):
        write_checkpoint(tmp_path, lines_read)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["00000012", "00000011"]
    assert [read_checkpoint(folder).lines_read for folder in list_checkpoints(tmp_path)] == [11, 10]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_half_written_checkpoint_is_ignored_and_is_removed_by_the_next(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    begun = CheckpointWriter(tmp_path)
    (begun.staging / "checkpoint.json").write_text("{}")
    (begun.staging / "left over").write_text("")
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["00000001"]
    second = write_checkpoint(tmp_path, 2)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["00000002", "00000001"]
    assert not (second / "left over").exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_other_files_in_the_folder_are_no_checkpoints(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    (tmp_path / "00000009").write_text("a file")
    (tmp_path / "notes").mkdir()
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["00000001"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"place": "many"}', b"\xff\xfe", None])
def test_a_corrupt_manifest_is_an_error_that_names_it_and_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    folder = write_checkpoint(tmp_path, 1)
    if content is None:
        (folder / "checkpoint.json").unlink()
    else:
        (folder / "checkpoint.json").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"checkpoint\.json: the checkpoint cannot be read .* delete the folder .*00000001"
    ):
        read_checkpoint(folder)


def test_another_format_version_is_an_error_that_names_both(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1)
    written = json.loads((folder / "checkpoint.json").read_bytes())
    (folder / "checkpoint.json").write_text(json.dumps(written | {"format": CHECKPOINT_FORMAT + 1}))
    with pytest.raises(
        CheckpointError, match=f"has format {CHECKPOINT_FORMAT + 1}, this program reads {CHECKPOINT_FORMAT}: start"
    ):
        read_checkpoint(folder)


def test_restored_stores_hold_the_checkpoints_content_and_leave_it_unchanged(tmp_path: Path) -> None:
    """Twice from one checkpoint, with writes to the live stores in between."""
    live = tmp_path / "state"
    store = Store(live / "join-0")
    store.write({b"a": b"1"})
    writer = CheckpointWriter(tmp_path / "checkpoints")
    (writer.staging / "state").mkdir()
    store.checkpoint(writer.staging / "state" / "join-0")
    folder = writer.commit(manifest())
    store.write({b"a": b"later"})
    store.close()
    (live / "stray").write_text("")
    for _ in range(2):
        restore_stores(folder, live)
        assert sorted(path.name for path in live.iterdir()) == ["join-0", "stray"]
        store = Store(live / "join-0")
        assert store.get_many([b"a", b"b"]) == [b"1", None]
        store.write({b"a": b"2", b"b": b"2"})
        store.close()


class Word:
    """A sink of one word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Examples are ignored."""

    def flush(self) -> None:
        """Do nothing."""

    def save(self, folder: Path) -> None:
        (folder / "word").write_text(self.word)

    def load(self, folder: Path) -> None:
        self.word = (folder / "word").read_text()


def test_every_sink_restores_its_state_at_the_checkpoint(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path)
    writer.save_sinks({"wide-deep+": Word("one"), "lr": Word("two")})
    checkpoint = writer.commit(manifest())
    sinks = {"lr": Word(""), "wide-deep+": Word("")}
    load_sinks(checkpoint, sinks)
    assert {name: sink.word for name, sink in sinks.items()} == {"lr": "two", "wide-deep+": "one"}


def test_another_configuration_is_rejected_by_the_name_of_each_setting(tmp_path: Path) -> None:
    check_config(tmp_path, {"seed": "1"}, {"seed": "1"}, Remedy.RESTART)
    expected = r"model is lr, was not set; seed is 1, was 2: use the old one, or start the run over$"
    with pytest.raises(UsageError, match=expected):
        check_config(tmp_path, {"seed": "1", "model": "lr"}, {"seed": "2"}, Remedy.RESTART)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lines_read": -1}, "lines_read"),
        ({"dead_letter_bytes": -4}, "dead_letter_bytes"),
        ({"examples_bytes": -4}, "examples_bytes"),
        ({"dead_letters": {"blank": -1}}, r"dead_letters"),
        ({"digest": {"pages": -1}}, r"digest\.pages"),
        ({"digest": {"clicks": -1}}, r"digest\.clicks"),
        ({"digest": {"examples": "xyz"}}, r"digest\.examples"),
        ({"more": [[]]}, "recursion"),
    ],
)
def test_a_manifest_of_impossible_numbers_names_them_and_what_to_do(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    folder = write_checkpoint(tmp_path, 1)
    written = json.loads((folder / "checkpoint.json").read_bytes())
    content = json.dumps(written | changes)
    if "more" in changes:
        content = content.replace("[[]]", "[" * 100_000 + "]" * 100_000)
    (folder / "checkpoint.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"cannot be read .*{said}.* delete the folder .*00000001"):
        read_checkpoint(folder)


class Unfit(Word):
    """A sink whose state can be neither saved nor restored."""

    def save(self, folder: Path) -> None:
        raise TrainingError("a weight is nan")

    def load(self, folder: Path) -> None:
        raise CheckpointError("tensors are damaged", Remedy.OLDER_CHECKPOINT)


def test_checkpoints_that_fail_cost_none_of_those_that_there_are(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    write_checkpoint(tmp_path, 2)
    for _ in range(5):
        with pytest.raises(TrainingError, match="a weight is nan"):
            CheckpointWriter(tmp_path).save_sinks({"lr": Unfit("")})
    assert [read_checkpoint(folder).lines_read for folder in list_checkpoints(tmp_path)] == [2, 1]


def test_a_damaged_checkpoint_names_the_one_before_it_if_there_is_one(tmp_path: Path) -> None:
    first, second = write_checkpoint(tmp_path, 1), write_checkpoint(tmp_path, 2)
    before = rf"tensors are damaged: delete the folder {second} to resume from 00000001.* nothing is lost.*empty run"
    with pytest.raises(CheckpointError, match=before):
        load_sinks(second, {"lr": Unfit("")})
    with pytest.raises(CheckpointError, match=r"tensors are damaged: start over in an empty run folder$"):
        load_sinks(first, {"lr": Unfit("")})
    with pytest.raises(CheckpointError, match=f"sinks/other cannot be restored .* delete the folder {second}"):
        load_sinks(second, {"other": Word("")})


def test_a_checkpoint_is_private_and_not_written_through_a_link(tmp_path: Path) -> None:
    os.umask(0)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("content")
    (tmp_path / "00000001.tmp").symlink_to(precious)
    writer = CheckpointWriter(tmp_path)
    writer.save_sinks({"lr": Word("one")})
    folder = writer.commit(manifest())
    assert [path.name for path in precious.iterdir()] == ["file"]
    for path in [folder, *folder.rglob("*")]:
        assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_checkpoint_for_which_there_is_no_room_names_the_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    writer = CheckpointWriter(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"00000002\.tmp/reader: .* be written \(File too large\); those before"
        ):
            writer.write("reader", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["00000001"]
