"""Resolves paths, folders and patterns to the files of a log, in reading order."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final

from prectr.state.errors import InputError, Remedy, UsageError
from prectr.stream.readers.logfile import EXTENSIONS, LogFile

_MAGIC: Final = frozenset("*?[")
_DIGITS: Final = re.compile(r"([0-9]{1,1000})")
_log = logging.getLogger(__name__)

_Entry = Path | os.DirEntry[str]


def open_log(paths: Sequence[str | os.PathLike[str]]) -> list[LogFile]:
    """Return the files of a log, in the order given.

    Each path is a file, a directory (the log files directly in it, by name) or a pattern (`*`, `?`, `[…]` within a
    name, `**` for any folders; the matching files, by path). Numbers in names are compared as numbers: part-2 comes
    before part-10. From directories and patterns, files that are hidden, begin with `_` or have another extension are
    skipped, with a warning for the last.

    Raises:
        UsageError: no path is given, or a file has another extension.
        InputError: nothing matches, or something cannot be read.
    """
    if not paths:
        raise UsageError("no log is given: name at least one file, directory or pattern")
    folders: dict[str, str] = {}
    return [LogFile(path, folders) for argument in paths for path in _resolve(os.fspath(argument))]


def check_log(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Check that a log can be opened and is not obviously something else, by the first bytes of each file.

    Raises:
        UsageError, InputError: as `open_log`; a file looks like something else than events, and what to do about it.
    """
    for file in open_log(paths):
        file.check_content()


def _resolve(argument: str) -> list[Path]:
    path = Path(argument)
    mode = _mode_of(argument)
    if mode is not None and S_ISDIR(mode):
        entries = sorted(_entries(path), key=lambda entry: _by_number(entry.name))
        files = [Path(entry) for entry in entries if not entry.is_dir() and _is_log(entry)]
    elif mode is None and _MAGIC.intersection(argument):
        matching = sorted(_glob(Path(path.anchor), path.parts[bool(path.anchor) :]), key=_by_numbers)
        files = [each for each in matching if _is_log(each)]
    else:
        return [_single_file(path, mode)]
    if not files:
        raise InputError(f"{argument}: no log in it; a log's name ends in one of {', '.join(EXTENSIONS)}")
    return files


def _mode_of(path: str) -> int | None:
    """Return the mode of what is at a path; None if there is nothing that can be looked at."""
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return None


def _single_file(path: Path, mode: int | None) -> Path:
    if not path.name.endswith(EXTENSIONS):
        raise UsageError(
            f"{path}: unknown file type; a log's name ends in one of {', '.join(EXTENSIONS)}", Remedy.CONVERT
        )
    if mode is not None and not S_ISREG(mode):
        raise InputError(f"{path} is not a file: a resumed run must be able to read a log again from its middle")
    return path


def _by_number(name: str) -> list[str | tuple[int, str]]:
    """Sort key of a name: numbers in it as numbers."""
    return [_number(piece) for piece in _DIGITS.split(name)]


def _by_numbers(path: Path) -> list[list[str | tuple[int, str]]]:
    """Sort key of a path: folder by folder."""
    return [_by_number(part) for part in path.parts]


def _number(piece: str) -> str | tuple[int, str]:
    return (int(piece), piece) if piece.isdecimal() else piece


def _is_log(entry: _Entry) -> bool:
    if entry.name.startswith((".", "_")):
        return False
    is_log = entry.name.endswith(EXTENSIONS) and entry.is_file()
    if not is_log:
        _log.warning("skipped: %s (a log's name ends in one of %s)", Path(entry), ", ".join(EXTENSIONS))
    return is_log


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(f"the directory {folder} cannot be read: {error.strerror}") from error


def _glob(folder: Path, pattern: Sequence[str]) -> Iterator[Path]:
    """Yield the matching files below a folder. Unlike with `glob`, a folder that cannot be read is an error."""
    name, rest = pattern[0], pattern[1:]
    if not _MAGIC.intersection(name):
        entries: list[_Entry] = [folder / name] if (folder / name).exists() else []
    elif name == "**":
        if rest:
            yield from _glob(folder, rest)
        entries = [entry for entry in _entries(folder) if not entry.name.startswith(".")]
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():
                yield from _glob(Path(entry), pattern)
            elif not rest:
                yield Path(entry)
        return
    else:
        entries = [entry for entry in _entries(folder) if fnmatchcase(entry.name, name)]
    for entry in entries:
        if not rest and not entry.is_dir():
            yield Path(entry)
        elif rest and entry.is_dir():
            yield from _glob(Path(entry), rest)
