"""Resolves paths, folders and patterns to the files of a log, in reading order."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from prectr.state.errors import InputError, Remedy, UsageError
from prectr.stream.readers.logfile import EXTENSIONS, LogFile

_MAGIC: Final = frozenset("*?[")
_DIGITS: Final = re.compile(r"([0-9]{1,1000})")
_log = logging.getLogger(__name__)


def open_log(paths: Sequence[str | os.PathLike[str]]) -> list[LogFile]:
    """Return the files of a log, in the order given.

    Each path is a file, a directory (the log files directly in it, by name) or a pattern (`*`, `?`, `[…]` within a
    name, `**` for any folders; the matching files, by path). Numbers in names are compared as numbers: part-2 comes
    before part-10. From directories and
    patterns, files that are hidden, begin with `_` or have another extension are skipped, with a warning for the last.

    Raises:
        UsageError: no path is given, or a file has another extension.
        InputError: nothing matches, or something cannot be read.
    """
    if not paths:
        raise UsageError("no log is given: name at least one file, directory or pattern")
    folders: dict[Path, str] = {}
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
    if path.is_dir():
        found = sorted((entry for entry in _entries(path) if not entry.is_dir()), key=_by_number)
    elif not path.exists() and _MAGIC.intersection(argument):
        found = sorted(_glob(Path(path.anchor), path.parts[bool(path.anchor) :]), key=_by_number)
    else:
        return [_single_file(path)]
    files = [entry for entry in found if _is_log(entry)]
    if not files:
        raise InputError(f"{argument}: no log in it; a log's name ends in one of {', '.join(EXTENSIONS)}")
    return files


def _single_file(path: Path) -> Path:
    if not path.name.endswith(EXTENSIONS):
        raise UsageError(
            f"{path}: unknown file type; a log's name ends in one of {', '.join(EXTENSIONS)}", Remedy.CONVERT
        )
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a file: a resumed run must be able to read a log again from its middle")
    return path


def _by_number(path: Path) -> list[list[str | tuple[int, str]]]:
    """Sort key of a path: folder by folder, numbers as numbers."""
    return [[_number(piece) for piece in _DIGITS.split(part)] for part in path.parts]


def _number(piece: str) -> str | tuple[int, str]:
    return (int(piece), piece) if piece.isdecimal() else piece


def _is_log(path: Path) -> bool:
    if path.name.startswith((".", "_")):
        return False
    is_log = path.name.endswith(EXTENSIONS) and path.is_file()
    if not is_log:
        _log.warning("skipped: %s (a log's name ends in one of %s)", path, ", ".join(EXTENSIONS))
    return is_log


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"the directory {folder} cannot be read: {error.strerror}") from error


def _glob(folder: Path, pattern: Sequence[str]) -> Iterator[Path]:
    """Yield the matching files below a folder. Unlike with `glob`, a folder that cannot be read is an error."""
    name, rest = pattern[0], pattern[1:]
    if not _MAGIC.intersection(name):
        entries = [folder / name] if (folder / name).exists() else []
    elif name == "**":
        if rest:
            yield from _glob(folder, rest)
        entries = [entry for entry in _entries(folder) if not entry.name.startswith(".")]
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():
                yield from _glob(entry, pattern)
            elif not rest:
                yield entry
        return
    else:
        entries = [entry for entry in _entries(folder) if fnmatchcase(entry.name, name)]
    for entry in entries:
        if not rest and not entry.is_dir():
            yield entry
        elif rest and entry.is_dir():
            yield from _glob(entry, rest)
