"""Graded pairs: the relevance of a title to a query, judged by people or by a rule."""

import gzip
import zlib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Final

import msgspec

from prectr.model.layers.memory import read_file
from prectr.model.text.encoder.tokens import Pair
from prectr.state.aggregates import LEVELS
from prectr.state.errors import InputError


class GradedPair(msgspec.Struct, frozen=True):
    """A query, a title, and the title's level for the query, 1 (irrelevant) to 4 (strongly relevant)."""

    query: str
    title: str
    level: int

    @property
    def pair(self) -> Pair:
        """Query and title."""
        return self.query, self.title


class _Line(msgspec.Struct):
    """A line of a file of pairs; unknown fields are ignored."""

    query: str
    title: str = ""
    level: int | None = None
    grade: int | None = None


_MAX_BYTES: Final = 1 << 30
"""Decompressed; 100 bytes a pair make ten million pairs."""

_decode = msgspec.json.Decoder(_Line).decode
_encode = msgspec.json.Encoder().encode


def read_graded(path: Path) -> list[GradedPair]:
    """Read graded pairs of a JSON Lines file (.gz too): query, title, and level 1 to 4 or grade 0 to 3.

    Raises:
        InputError: the file cannot be read, or a line is not a graded pair; the message names the line.
    """
    graded = []
    for number, line in _read_lines(path):
        level = line.level if line.level is not None else line.grade + 1 if line.grade is not None else None
        if level is None:
            raise InputError(
                f"{path} line {number} has no level (1 to 4) and no grade (0 to 3): grade it or leave it out"
            )
        if level not in LEVELS:
            seen = f"level {line.level}" if line.level is not None else f"grade {line.grade}"
            raise InputError(f"{path} line {number} has {seen}; a level is 1 to 4, a grade 0 to 3")
        graded.append(GradedPair(line.query, line.title, level))
    if not graded:
        raise InputError(f"{path} holds no graded pairs: use a file with lines of query, title and level")
    return graded


def read_pairs(path: Path) -> list[Pair]:
    """Read pairs of a JSON Lines file (.gz too): query and title; levels are ignored. InputError as above."""
    pairs = [(line.query, line.title) for _, line in _read_lines(path)]
    if not pairs:
        raise InputError(f"{path} holds no pairs: use a file with lines of query and title")
    return pairs


def pack_graded(pairs: Iterable[GradedPair]) -> bytes:
    """Encode graded pairs as compressed JSON Lines; equal pairs give equal bytes."""
    return gzip.compress(b"".join(_encode(pair) + b"\n" for pair in pairs), 9, mtime=0)


def _read_lines(path: Path) -> Iterable[tuple[int, _Line]]:
    try:
        content = read_file(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name a file of pairs, JSON Lines") from error
    if content.startswith(b"\x1f\x8b"):
        try:
            content = _decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} is corrupt: {error}; create the file again") from error
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield number, _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{path} line {number} is not a pair of query and title: {error}") from error


def _decompress(content: bytes) -> bytes:
    """Decompress gzip; OSError: it would be larger than `_MAX_BYTES`, as a file made to fill the memory is."""
    with gzip.open(BytesIO(content)) as file:
        decompressed = file.read(_MAX_BYTES + 1)
    if len(decompressed) > _MAX_BYTES:
        raise OSError(f"it holds more than {_MAX_BYTES:,} bytes, compressed")
    return decompressed
