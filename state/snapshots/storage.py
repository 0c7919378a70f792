"""Storage for snapshots at any fsspec URL: a folder, a bucket, memory; every error names the URL."""

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

from prectr.state.errors import ConfigError, Remedy, StateError, SystemLimitError
from prectr.state.system_limits import limit_advice, limit_of

# A password may contain @ and /; digits and a slash after the colon are a port.
_USER: Final = re.compile(r"(?<=://)(?:[^/\s:]*:(?!\d+/)\S*|[^/\s]*)@")
_QUERY: Final = re.compile(r"(?<=\?)\S+")


def mask_credentials(url: str) -> str:
    """Return `url` without user, password and query, which must not be printed."""
    if "://" not in url:
        return url
    return _QUERY.sub("***", _USER.sub("***@", url))


class SnapshotStorage:
    """A folder at a URL. Paths are relative to it, with `/` as the separator.

    Whether a file appears atomically depends on the filesystem; listings are never cached.
    """

    def __init__(self, url: str) -> None:
        """Select the filesystem of `url`, without connecting to it.

        Raises:
            ConfigError: the kind of URL is unknown, or the package that implements it is not installed.
        """
        self.name = mask_credentials(url)
        self._url = url
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except Exception as error:
            # A filesystem's constructor may raise anything: ValueError, ImportError, errors of its service.
            raise ConfigError(
                f"snapshot location {self.name} cannot be used: {self._redact(error)}: name a folder or a URL "
                "that fsspec supports (file://, s3://, gs://, ...), and install the package for it if it needs one"
            ) from error
        self._root: str = root.rstrip("/")
        self._created_folders: set[str] = set()

    def subfolder(self, name: str) -> "SnapshotStorage":
        """Return the folder `name` inside this one."""
        storage = copy(self)
        storage.name = f"{self.name.rstrip('/')}/{name}"
        storage._root = f"{self._root}/{name}"
        return storage

    def check_access(self) -> None:
        """Write, read and delete a small file, so that an unusable location is reported at start.

        Raises:
            StateError: one of these fails; the message names the location and a remedy.
        """
        probe, content = f"probe-{secrets.token_hex(8)}", b"prectr"
        self.write(probe, content)
        found = self.read(probe)
        self.delete(probe)
        if found != content:
            raise StateError(f"{self.name}: a file written there is read back as {found!r}", Remedy.OTHER_SNAPSHOTS)

    def list_names(self, folder: str) -> list[str]:
        """Return the names of the files directly in `folder`; an empty list if there is no such folder."""
        with self._translate_errors(folder, "listed"):
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(self._full_path(folder), detail=True)
            except FileNotFoundError:
                return []
            return [entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file"]

    def file_sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes in bytes of all files below `folder`, by path relative to it."""
        start = f"{self._full_path(folder)}/"
        with self._translate_errors(folder, "listed"):
            self._fs.invalidate_cache()
            try:
                found: dict[str, dict[str, Any]] = self._fs.find(start, detail=True)
            except FileNotFoundError:
                return {}
            return {path[len(start) :]: entry["size"] for path, entry in found.items()}

    def read(self, path: str, max_bytes: int | None = None) -> bytes | None:
        """Return the content of a file, of a larger one the first `max_bytes`; None if there is none."""
        with self._translate_errors(path, "read"):
            try:
                limit = {} if max_bytes is None else {"end": max_bytes}
                content: bytes = self._fs.cat_file(self._full_path(path), **limit)
            except FileNotFoundError:
                return None
            return content

    def write(self, path: str, content: bytes) -> None:
        """Write a file."""
        with self._translate_errors(path, "written"):
            self._make_parent_folder(path)
            self._fs.pipe_file(self._full_path(path), content)

    def upload(self, file: Path, path: str) -> None:
        """Copy the local `file` to `path`."""
        with self._translate_errors(path, "written"):
            self._make_parent_folder(path)
            self._fs.put_file(str(file), self._full_path(path))

    def download(self, path: str, file: Path) -> bool:
        """Copy `path` to the local `file`; return whether it existed."""
        with self._translate_errors(path, "read"):
            try:
                self._fs.get_file(self._full_path(path), str(file))
            except FileNotFoundError:
                return False
            return True

    def delete(self, path: str) -> None:
        """Delete a file if it exists and, on a local disk, its folder if that is then empty."""
        with self._translate_errors(path, "deleted"):
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._full_path(path))
            if "/" in path and isinstance(self._fs, LocalFileSystem):
                with suppress(OSError):
                    self._fs.rmdir(self._full_path(path.rpartition("/")[0]))

    def modified_at(self, path: str) -> float | None:
        """Return when a file was written, in seconds by the storage's clock; None if it is gone or not known."""
        with self._translate_errors(path, "read"):
            try:
                return float(self._fs.modified(self._full_path(path)).timestamp())
            except (FileNotFoundError, NotImplementedError, KeyError, AttributeError):
                return None

    def _full_path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _make_parent_folder(self, path: str) -> None:
        """Create the folders down to `path`; above our own only on a local disk, elsewhere it would create a bucket."""
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
            # Each filesystem raises errors of its own, with no common base class.
            advice, *remedies = _advice(error)
            kind = SystemLimitError if limit_of(error) else StateError
            raise kind(f"{self.name}: {path} cannot be {action}: {self._redact(error)}: {advice}", *remedies) from error

    def _redact(self, error: Exception) -> str:
        text = mask_credentials(f"{type(error).__name__} {error}".replace(self._url, self.name))
        if user := _USER.search(self._url):
            secret = user[0][:-1].partition(":")[2] or user[0][:-1]
            for form in {secret, unquote(secret)} - {""}:
                text = text.replace(form, "***")
        return " ".join(text.split())[:400]


def _advice(error: Exception) -> tuple[str, *tuple[Remedy, ...]]:
    """Return what to do about a filesystem's error, and the remedies besides."""
    if isinstance(error, PermissionError):
        return "grant this program permission to list, read, write and delete there,", Remedy.OTHER_SNAPSHOTS
    if isinstance(error, FileNotFoundError):
        return "create the bucket or folder first,", Remedy.OTHER_SNAPSHOTS
    if limit := limit_advice(error):
        return (limit,)
    return "check the address, the network and the credentials,", Remedy.OTHER_SNAPSHOTS
