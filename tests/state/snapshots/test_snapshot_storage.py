"""Snapshot storage: URLs of fsspec, and errors that name the location without any secret."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from prectr.state.errors import ConfigError, StateError
from prectr.state.snapshots.storage import SnapshotStorage, mask_credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("/data/a@b?c", "/data/a@b?c"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("s3://user:password@bucket/a", "s3://***@bucket/a"),
        ("s3://user:p@ss/wo:rd@bucket/a", "s3://***@bucket/a"),
        ("https://token@host/a?sig=secret&x=1", "https://***@host/a?***"),
        ("hdfs://host:8020/a@b", "hdfs://host:8020/a@b"),
    ],
)
def test_user_password_and_query_are_masked(url: str, shown: str) -> None:
    assert mask_credentials(url) == shown


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_files_go_in_and_come_out_by_their_paths(scheme: str, tmp_path: Path) -> None:
    location = SnapshotStorage(f"{scheme}{tmp_path}/new/place/").subfolder("task")
    (tmp_path / "file").write_bytes(b"content")
    assert (location.list_names("a"), location.file_sizes("a"), location.read("a/b")) == ([], {}, None)
    location.write("a/b", b"")
    location.upload(tmp_path / "file", "a/c/d")
    location.upload(tmp_path / "file", "a/c/e")
    assert location.list_names("a") == ["b"]
    assert location.file_sizes("a") == {"b": 0, "c/d": 7, "c/e": 7}
    assert location.read("a/c/d") == b"content"
    assert location.download("a/c/e", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"
    assert not location.download("a/x", tmp_path / "nothing")
    written = location.modified_at("a/b")
    assert written is not None
    assert abs(written - (tmp_path / "file").stat().st_mtime) < 3600
    assert location.modified_at("a/x") is None
    for path in ("a/b", "a/b", "a/c/d", "a/c/e"):
        location.delete(path)
    assert location.file_sizes("a") == {}


def test_a_local_folder_that_gets_empty_goes(tmp_path: Path) -> None:
    location = SnapshotStorage(str(tmp_path))
    for name in ("x", "y"):
        location.write(f"files/owner/{name}", b"")
    location.delete("files/owner/x")
    assert (tmp_path / "files" / "owner").is_dir()
    location.delete("files/owner/y")
    assert not (tmp_path / "files" / "owner").exists()
    location.write("files/owner/y", b"again")
    assert location.read("files/owner/y") == b"again"


def test_a_check_leaves_no_files(tmp_path: Path) -> None:
    SnapshotStorage(str(tmp_path / "new")).check_access()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("url", ["nowhere://user:password@bucket/a", "memory::nowhere://user:password@bucket/a"])
def test_an_unknown_protocol_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SnapshotStorage(url)
    assert "nowhere://***@bucket/a cannot be used" in str(caught.value)
    assert "name a folder or a URL that fsspec supports" in str(caught.value)
    assert "password" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    location = SnapshotStorage(f"{tmp_path}/file/below")
    with pytest.raises(StateError, match=r"file/below: probe-\w+ cannot be written: NotADirectoryError.*use another"):
        location.check_access()


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (PermissionError(13, "Forbidden"), "grant this program permission to list, read, write and delete there"),
        (FileNotFoundError("There is no such bucket"), "create the bucket or folder first, or use another"),
        (OSError(28, "No space left on device"), "the disk is full"),
        (RuntimeError("NoCredentials"), "check the address, the network and the credentials, or use another"),
    ],
)
def test_a_storage_error_is_passed_on_with_a_fix(
    error: Exception, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fails)
    with pytest.raises(StateError) as caught:
        SnapshotStorage("memory://place").check_access()
    assert str(caught.value).startswith(f"memory://place: probe-{str(caught.value).split('-')[1][:16]} cannot be")
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda location, file: location.list_names("a"),
        lambda location, file: location.file_sizes("a"),
        lambda location, file: location.read("a"),
        lambda location, file: location.write("a", b""),
        lambda location, file: location.upload(file, "a"),
        lambda location, file: location.download("a", file),
        lambda location, file: location.delete("a"),
        lambda location, file: location.modified_at("a"),
    ],
)
def test_no_error_contains_a_secret(
    call: Callable[[SnapshotStorage, Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("pw%41ord refused at memory://user:pw%41ord@host/a, also as pwAord")

    location = SnapshotStorage("memory://user:pw%41ord@host/a")
    for method in ("ls", "find", "cat_file", "pipe_file", "put_file", "get_file", "rm_file", "modified"):
        monkeypatch.setattr(MemoryFileSystem, method, fails)
    with pytest.raises(StateError) as caught:
        call(location, tmp_path / "file")
    assert "*** refused at memory://***@host/a, also as ***" in str(caught.value)
    assert "ord" not in str(caught.value).replace("password", "")


def test_a_storage_that_loses_writes_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda self, path: b"other")
    with pytest.raises(StateError, match="is read back as b'other': use another snapshot location"):
        SnapshotStorage("memory://place").check_access()


def test_folders_are_made_where_they_are_needed_and_buckets_never(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def mkdir(self: MemoryFileSystem, path: str, create_parents: bool = True) -> None:
        assert not create_parents
        made.append(path)
        raise FileExistsError(path)

    monkeypatch.setattr(MemoryFileSystem, "mkdir", mkdir)
    bucket = SnapshotStorage("memory://bucket")
    bucket.write("a", b"")
    bucket.subfolder("task").write("files/owner/b", b"")
    bucket.subfolder("task").write("files/owner/c", b"")
    assert made == ["/bucket/task", "/bucket/task/files", "/bucket/task/files/owner"]


def test_a_storage_without_timestamps_returns_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(self: LocalFileSystem, path: str) -> None:
        raise NotImplementedError

    location = SnapshotStorage(str(tmp_path))
    location.write("a", b"")
    monkeypatch.setattr(LocalFileSystem, "modified", unknown)
    assert location.modified_at("a") is None
