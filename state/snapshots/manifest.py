"""The manifest of a snapshot: the files of a task's state at an offset, and the system that it belongs to."""

import re
from typing import Annotated, Any, Final

import msgspec

from prectr.state.encoding import DAMAGE
from prectr.state.errors import Remedy, StateError

MANIFEST_FORMAT: Final = 1
MAX_MANIFEST_BYTES: Final = 16 << 20
_MAX_FILES: Final = 16_384
_MAX_IDENTITY_DEPTH: Final = 8
"""Comparing and printing an identity recurses."""
_NAME: Final = re.compile(r"(\d{20})-([0-9a-f]{16})-(\d{8})\.json")

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Format = Annotated[int, msgspec.Meta(ge=1, lt=1 << 16)]
WriterEpoch = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]


class StoredFile(msgspec.Struct, frozen=True):
    """A file of the state.

    Attributes:
        size: in bytes.
        save_number: save of the manifest's writer epoch that uploaded the file.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(?!\n)$", max_length=128)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")]
    size: Count
    save_number: Count


class SnapshotManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A task's state before the record at `offset`.

    Attributes:
        writer_epoch: random id of the opening of the task that wrote the snapshot.
        save_number: number of the save within the epoch, from 1.
        created_at: seconds since 1970 by the writer's clock.
    """

    format: Format = MANIFEST_FORMAT
    identity: dict[str, Any]
    offset: Count
    writer_epoch: WriterEpoch
    save_number: Count
    created_at: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    files: Annotated[tuple[StoredFile, ...], msgspec.Meta(max_length=_MAX_FILES)]

    @property
    def name(self) -> str:
        """Name of the manifest's file: names sort by offset, and no two saves have the same name."""
        return f"{self.offset:020}-{self.writer_epoch}-{self.save_number:08}.json"

    def path(self, file: StoredFile) -> str:
        """Path of one of its files. A path is never reused: see `state/snapshots/task_snapshots.py`."""
        return f"{self.writer_epoch}/{file.save_number:08}-{file.sha256}"

    def sizes(self) -> dict[str, int]:
        """Sizes of its files in bytes, by path."""
        return {self.path(file): file.size for file in self.files}


def is_manifest_name(name: str) -> bool:
    """Whether a file name is that of a manifest."""
    return _NAME.fullmatch(name) is not None


def offset_of(name: str) -> int:
    """Return the offset in a manifest's name."""
    return int(name[:20])


def writer_epoch_of(name: str) -> str:
    """Return the writer epoch in a manifest's name."""
    return name[21:37]


def encode_manifest(manifest: SnapshotManifest) -> bytes:
    """Encode a manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


class _FormatHeader(msgspec.Struct):
    format: Format


# Tasks are opened in parallel, and msgspec 0.22 crashes if two threads are the first to decode a type.
_decode_format: Final = msgspec.json.Decoder(_FormatHeader).decode
_decode_manifest: Final = msgspec.json.Decoder(SnapshotManifest).decode


def decode_manifest(name: str, content: bytes) -> SnapshotManifest | None:
    """Decode the manifest stored under `name`; None if it is corrupt.

    Raises:
        StateError: the manifest is intact, but of a format that this program does not read.
    """
    try:
        version = _decode_format(content).format
        if version != MANIFEST_FORMAT:
            raise StateError(
                f"snapshot {name} is of format {version}, this program reads format {MANIFEST_FORMAT}: "
                "use the release that wrote it,",
                Remedy.OTHER_SNAPSHOTS,
            )
        manifest = _decode_manifest(content)
    except DAMAGE:
        return None
    has_distinct_names = len({file.name for file in manifest.files}) == len(manifest.files)
    is_whole = manifest.name == name and has_distinct_names and _is_shallow(manifest.identity, _MAX_IDENTITY_DEPTH)
    return manifest if is_whole else None


def _is_shallow(value: object, depth: int) -> bool:
    """Whether no more than `depth` maps and lists are nested."""
    if not isinstance(value, dict | list):
        return True
    parts = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(part, depth - 1) for part in parts)
