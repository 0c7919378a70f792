"""Paths of a log: the order of its files, and an error wherever something would be missed."""

import logging
import os
import socket
from pathlib import Path

import pytest

from prectr.state.errors import InputError, UsageError
from prectr.stream.readers import open_log


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}\n")


def names(found: list[object]) -> list[str]:
    return [file.path.name for file in found]  # type: ignore[attr-defined]


def test_files_are_read_in_the_order_given_directories_and_patterns_by_name(tmp_path: Path) -> None:
    touch(*(tmp_path / "day" / name for name in ("b.jsonl", "a.jsonl.gz", "c.parquet", "B.ndjson.zst", "10.json")))
    touch(tmp_path / "z.jsonl", tmp_path / "y.jsonl")
    log = open_log([tmp_path / "z.jsonl", tmp_path / "day", str(tmp_path / "[xyz].jsonl")])
    assert names(log) == [
        "z.jsonl",
        "10.json",
        "B.ndjson.zst",
        "a.jsonl.gz",
        "b.jsonl",
        "c.parquet",
        "y.jsonl",
        "z.jsonl",
    ]


def test_a_pattern_reaches_into_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "2/a.jsonl", tmp_path / "1/b.jsonl", tmp_path / "1/deep/c.jsonl", tmp_path / "d.jsonl")
    monkeypatch.chdir(tmp_path)
    assert [str(file.path) for file in open_log(["*/*.jsonl"])] == ["1/b.jsonl", "2/a.jsonl"]
    assert [str(file.path) for file in open_log(["1/?.jsonl"])] == ["1/b.jsonl"]
    everything = ["1/b.jsonl", "1/deep/c.jsonl", "2/a.jsonl", "d.jsonl"]
    assert [str(file.path) for file in open_log(["**/*.jsonl"])] == everything
    assert [str(file.path) for file in open_log(["**"])] == everything
    with pytest.raises(InputError, match="no log"):
        open_log(["*/nothing/*.jsonl"])


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path / "a[1].jsonl", tmp_path / "a1.jsonl")
    assert names(open_log([tmp_path / "a[1].jsonl"])) == ["a[1].jsonl"]


def test_what_is_left_out_of_a_directory_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path / "a.jsonl", tmp_path / "README.md", tmp_path / ".hidden.jsonl", tmp_path / "_SUCCESS")
    touch(tmp_path / "deeper" / "b.jsonl")
    with caplog.at_level(logging.WARNING):
        assert names(open_log([tmp_path])) == ["a.jsonl"]
    assert "README.md" in caplog.text
    assert "_SUCCESS" not in caplog.text


def test_naming_nothing_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="at least one file"):
        open_log([])


def test_an_unknown_ending_is_wrong_use_and_names_the_known_ones(tmp_path: Path) -> None:
    touch(tmp_path / "log.csv")
    with pytest.raises(UsageError, match=r"log\.csv.*\.jsonl.*\.parquet"):
        open_log([tmp_path / "log.csv"])


@pytest.mark.parametrize("name", ["missing.jsonl", "missing-*.jsonl", "no/such/*.jsonl"])
def test_what_does_not_exist_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"missing|no/such"):
        open_log([tmp_path / name])


def test_an_empty_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no log in it"):
        open_log([tmp_path / "empty"])


@pytest.mark.parametrize("named", ["closed", "clos*/*.jsonl", "**/*.jsonl"])
def test_a_directory_that_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    touch(tmp_path / "closed" / "a.jsonl", tmp_path / "open" / "b.jsonl")
    listed = os.scandir

    def refuse(folder: Path) -> object:
        # Permissions do not apply to root, as which containers run tests.
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="closed cannot be read: Permission denied"):
        open_log([tmp_path / named])


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    with pytest.raises(InputError, match=r"loop\.jsonl cannot be read"):
        open_log([tmp_path / "loop.jsonl"])
    touch(tmp_path / "file.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        open_log([tmp_path / "file.jsonl" / "deeper.jsonl"])


def test_what_cannot_be_read_twice_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InputError, match="is not a file"):
        open_log([tmp_path / "pipe.jsonl"])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.jsonl"))
        with pytest.raises(InputError, match="is not a file"):
            open_log([tmp_path / "s.jsonl"])
