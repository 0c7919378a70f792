"""A place for snapshots that fsspec can reach: a folder, memory, a bucket; every failure names it."""

import errno
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from prectr.state.errors import ConfigError, StateError

# A password may hold @ and /; what follows a host's port is no password.
_USER: Final = re.compile(r"(?<=://)(?:[^/\s:]*:(?!\d+/)\S*|[^/\s]*)@")
_QUERY: Final = re.compile(r"(?<=\?)\S+")


def mask_credentials(url: str) -> str:
    """`url` without the user, the password and the query in it, which nothing may print."""
    if "://" not in url:
        return url
    return _QUERY.sub("***", _USER.sub("***@", url))


class SnapshotStorage:
    """A folder under a URL. Paths are relative to it, with `/` between their parts.

    A file appears as a whole or in pieces, as the place has it; nothing is listed from a cache.
    """

    def __init__(self, url: str) -> None:
        """Find out how `url` is reached; nothing is asked of it yet.

        Raises:
            ConfigError: no such kind of place is known, or the package for it is not installed.
        """
        self.name = mask_credentials(url)
        self._url = url
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except Exception as error:
            # What a filesystem's constructor raises is its own affair: ValueError, ImportError, errors of its service.
            raise ConfigError(
                f"--snapshots {self.name}: cannot be used: {self._redact(error)}. Name a folder or a URL "
                "that fsspec knows (file://, s3://, gs://, ...), and install the package for it if it needs one"
            ) from error
        self._root: str = root.rstrip("/")
        self._created_folders: set[str] = set()

    def subfolder(self, name: str) -> "SnapshotStorage":
        """The folder `name` in this one, of the same kind."""
        storage = copy(self)
        storage.name = f"{self.name.rstrip('/')}/{name}"
        storage._root = f"{self._root}/{name}"
        return storage

    def check_access(self) -> None:
        """Write a small file, read it and remove it, so that what is wrong with the place is said at the start.

        Raises:
            StateError: that does not work; the message names the place and what to do.
        """
        probe, content = f"probe-{secrets.token_hex(8)}", b"prectr"
        self.write(probe, content)
        found = self.read(probe)
        self.delete(probe)
        if found != content:
            raise StateError(f"{self.name}: a file written there is read back as {found!r}: use another --snapshots")

    def list_names(self, folder: str) -> list[str]:
        """Names of the files that lie directly in `folder`; none where there is no such folder."""
        with self._translate_errors(folder, "listed"):
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(self._full_path(folder), detail=True)
            except FileNotFoundError:
                return []
            return [entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file"]

    def file_sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file anywhere below `folder`, by its path from there."""
        start = f"{self._full_path(folder)}/"
        with self._translate_errors(folder, "listed"):
            self._fs.invalidate_cache()
            try:
                found: dict[str, dict[str, Any]] = self._fs.find(start, detail=True)
            except FileNotFoundError:
                return {}
            return {path[len(start) :]: entry["size"] for path, entry in found.items()}

    def read(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        with self._translate_errors(path, "read"):
            try:
                content: bytes = self._fs.cat_file(self._full_path(path))
            except FileNotFoundError:
                return None
            return content

    def write(self, path: str, content: bytes) -> None:
        """Put a file there."""
        with self._translate_errors(path, "written"):
            self._make_parent_folder(path)
            self._fs.pipe_file(self._full_path(path), content)

    def upload(self, file: Path, path: str) -> None:
        """Copy a file of this machine to `path`."""
        with self._translate_errors(path, "written"):
            self._make_parent_folder(path)
            self._fs.put_file(str(file), self._full_path(path))

    def download(self, path: str, file: Path) -> bool:
        """Copy `path` into a file of this machine; whether it was there."""
        with self._translate_errors(path, "read"):
            try:
                self._fs.get_file(self._full_path(path), str(file))
            except FileNotFoundError:
                return False
            return True

    def delete(self, path: str) -> None:
        """Remove a file, which may have gone already, and, of a local place, the folder that it leaves empty."""
        with self._translate_errors(path, "deleted"):
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._full_path(path))
            if "/" in path and isinstance(self._fs, LocalFileSystem):
                with suppress(OSError):
                    self._fs.rmdir(self._full_path(path.rpartition("/")[0]))

    def modified_at(self, path: str) -> float | None:
        """When a file was written, in seconds by the clock of the place; None where it is gone or nobody knows."""
        with self._translate_errors(path, "read"):
            try:
                return float(self._fs.modified(self._full_path(path)).timestamp())
            except (FileNotFoundError, NotImplementedError, KeyError, AttributeError):
                return None

    def _full_path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _make_parent_folder(self, path: str) -> None:
        """Make the folders down to `path`. Above our own, only on a disk: elsewhere that would make a bucket."""
        folder = self._full_path(path).rpartition("/")[0]
        if isinstance(self._fs, LocalFileSystem):
            self._fs.makedirs(folder, exist_ok=True)
            return
        current = self._root
        for part in ["", *path.split("/")[:-1]]:
            current = f"{current}/{part}" if part else current
            if "/" in current.strip("/") and current not in self._created_folders:
                with suppress(FileExistsError):
                    self._fs.mkdir(current, create_parents=False)
                self._created_folders.add(current)

    @contextmanager
    def _translate_errors(self, path: str, action: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Every kind of place has its own tree of errors; all that can be said is where and what.
            raise StateError(
                f"{self.name}: {path} cannot be {action}: {self._redact(error)}. {_remedy(error)}"
            ) from error

    def _redact(self, error: Exception) -> str:
        text = mask_credentials(f"{type(error).__name__} {error}".replace(self._url, self.name))
        if user := _USER.search(self._url):
            secret = user[0][:-1].partition(":")[2] or user[0][:-1]
            for form in {secret, unquote(secret)} - {""}:
                text = text.replace(form, "***")
        return " ".join(text.split())[:400]


def _remedy(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "Give this program the right to list, read, write and delete there, or use another --snapshots"
    if isinstance(error, FileNotFoundError):
        return "Make the bucket or folder first, or use another --snapshots"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "The disk is full: free some space, then run the same command again"
    return "Check the address, the network and the credentials, or use another --snapshots"
