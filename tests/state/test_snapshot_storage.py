"""A location for snapshots: what fsspec makes of a URL, errors that name it, and no secret in any of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from prectr.state.errors import ConfigError, StateError
from prectr.state.snapshot_storage import Location, masked


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
    assert masked(url) == shown


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_files_go_in_and_come_out_by_their_paths(scheme: str, tmp_path: Path) -> None:
    location = Location(f"{scheme}{tmp_path}/new/place/").below("task")
    (tmp_path / "file").write_bytes(b"content")
    assert (location.names("a"), location.sizes("a"), location.read("a/b")) == ([], {}, None)
    location.write("a/b", b"")
    location.upload(tmp_path / "file", "a/c/d")
    location.upload(tmp_path / "file", "a/c/e")
    assert location.names("a") == ["b"]
    assert location.sizes("a") == {"b": 0, "c/d": 7, "c/e": 7}
    assert location.read("a/c/d") == b"content"
    assert location.download("a/c/e", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"
    assert not location.download("a/x", tmp_path / "nothing")
    written = location.modified("a/b")
    assert written is not None
    assert abs(written - (tmp_path / "file").stat().st_mtime) < 3600
    assert location.modified("a/x") is None
    for path in ("a/b", "a/b", "a/c/d", "a/c/e"):
        location.delete(path)
    assert location.sizes("a") == {}


def test_a_local_folder_that_gets_empty_goes(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    for name in ("x", "y"):
        location.write(f"files/owner/{name}", b"")
    location.delete("files/owner/x")
    assert (tmp_path / "files" / "owner").is_dir()
    location.delete("files/owner/y")
    assert not (tmp_path / "files" / "owner").exists()
    location.write("files/owner/y", b"again")
    assert location.read("files/owner/y") == b"again"


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    Location(str(tmp_path / "new")).check()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("url", ["nowhere://user:password@bucket/a", "memory::nowhere://user:password@bucket/a"])
def test_an_unknown_protocol_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Location(url)
    assert "nowhere://***@bucket/a: cannot be used" in str(caught.value)
    assert "Name a folder or a URL that fsspec knows" in str(caught.value)
    assert "password" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    location = Location(f"{tmp_path}/file/below")
    with pytest.raises(StateError, match=r"file/below: probe-\w+ cannot be written: NotADirectoryError.*--snapshots"):
        location.check()


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (PermissionError(13, "Forbidden"), "Give this program the right to list, read, write and delete there"),
        (FileNotFoundError("The specified bucket does not exist"), "Make the bucket or folder first"),
        (OSError(28, "No space left on device"), "The disk is full"),
        (RuntimeError("NoCredentials"), "Check the address, the network and the credentials"),
    ],
)
def test_what_a_place_says_is_passed_on_with_what_to_do(
    error: Exception, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fails)
    with pytest.raises(StateError) as caught:
        Location("memory://place").check()
    assert str(caught.value).startswith(f"memory://place: probe-{str(caught.value).split('-')[1][:16]} cannot be")
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda location, file: location.names("a"),
        lambda location, file: location.sizes("a"),
        lambda location, file: location.read("a"),
        lambda location, file: location.write("a", b""),
        lambda location, file: location.upload(file, "a"),
        lambda location, file: location.download("a", file),
        lambda location, file: location.delete("a"),
        lambda location, file: location.modified("a"),
    ],
)
def test_no_secret_comes_out_of_an_error(
    call: Callable[[Location, Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("pw%41ord refused at memory://user:pw%41ord@host/a, also as pwAord")

    location = Location("memory://user:pw%41ord@host/a")
    for method in ("ls", "find", "cat_file", "pipe_file", "put_file", "get_file", "rm_file", "modified"):
        monkeypatch.setattr(MemoryFileSystem, method, fails)
    with pytest.raises(StateError) as caught:
        call(location, tmp_path / "file")
    assert "*** refused at memory://***@host/a, also as ***" in str(caught.value)
    assert "ord" not in str(caught.value).replace("password", "")


def test_a_place_that_does_not_keep_what_is_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda self, path: b"other")
    with pytest.raises(StateError, match="is read back as b'other': use another --snapshots"):
        Location("memory://place").check()


def test_folders_are_made_where_they_are_needed_and_buckets_never(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def mkdir(self: MemoryFileSystem, path: str, create_parents: bool = True) -> None:
        assert not create_parents
        made.append(path)
        raise FileExistsError(path)

    monkeypatch.setattr(MemoryFileSystem, "mkdir", mkdir)
    bucket = Location("memory://bucket")
    bucket.write("a", b"")
    bucket.below("task").write("files/owner/b", b"")
    bucket.below("task").write("files/owner/c", b"")
    assert made == ["/bucket/task", "/bucket/task/files", "/bucket/task/files/owner"]


def test_a_place_that_does_not_know_times_says_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(self: LocalFileSystem, path: str) -> None:
        raise NotImplementedError

    location = Location(str(tmp_path))
    location.write("a", b"")
    monkeypatch.setattr(LocalFileSystem, "modified", unknown)
    assert location.modified("a") is None
