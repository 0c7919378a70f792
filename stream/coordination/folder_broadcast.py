"""Sends a folder of rank 0 to the other ranks, which may be on other machines."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from prectr.state.errors import CheckpointError
from prectr.state.private_files import make_private_folder, open_private_file
from prectr.stream.coordination.process_group import ProcessGroup

CHUNK_BYTES: Final = 4 << 20
"""Of a file in one message, of which each rank holds as many as there are ranks."""


class _Chunk(msgspec.Struct, array_like=True):
    """A part of a file. path: relative to the folder, with `/`; empty: there is no more."""

    path: str
    content: bytes = b""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Chunk).decode


def send_folder(group: ProcessGroup, folder: Path) -> None:
    """Send all files of a folder from rank 0 to the others, which call `receive_folder`.

    Raises:
        PrectrError: another rank has exited.
    """
    for chunk in _chunks(folder):
        group.all_gather_bytes(_encode(chunk))


def receive_folder(group: ProcessGroup, copy: Path) -> None:
    """Write the files that rank 0 sends to `copy`, which is empty or does not exist.

    Raises:
        CheckpointError: they cannot be written.
        PrectrError: another rank has exited.
    """
    while (chunk := _decode(group.all_gather_bytes(b"")[0])).path:
        _append(copy, chunk)


def _chunks(folder: Path) -> Iterator[_Chunk]:
    """Every file in parts, an empty one in one part; at last an empty path."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        with path.open("rb") as file:
            content = file.read(CHUNK_BYTES)
            yield _Chunk(name, content)
            while content := file.read(CHUNK_BYTES):
                yield _Chunk(name, content)
    yield _Chunk("")


def _append(copy: Path, chunk: _Chunk) -> None:
    target = copy / PurePosixPath(chunk.path)
    try:
        make_private_folder(target.parent)
        descriptor = open_private_file(target, os.O_WRONLY | os.O_APPEND)
        with os.fdopen(descriptor, "wb") as file:
            file.write(chunk.content)
    except OSError as error:
        raise CheckpointError(
            f"{target}: the checkpoint of rank 0 cannot be written here ({error.strerror}): free some space, or set "
            "TMPDIR to a folder with more"
        ) from error
