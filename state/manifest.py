"""The manifest of a snapshot: which files make up a task's state at an offset, and what the state belongs to."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec

from prectr.state.errors import StateError

MANIFEST_FORMAT: Final = 1
_NAME: Final = re.compile(r"(\d{20})-([0-9a-f]{16})-(\d{8})\.json")

Count = Annotated[int, msgspec.Meta(ge=0)]
WriterEpoch = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]


class StoredFile(msgspec.Struct, frozen=True):
    """A file of the state. save: number of the save of the manifest's owner that stored it. size: in bytes."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    size: Count
    save_number: Count


class SnapshotManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A task's state before the record at `offset`. created: seconds since the epoch, by its owner's clock."""

    format: int = MANIFEST_FORMAT
    identity: dict[str, Any]
    offset: Count
    writer_epoch: WriterEpoch
    save_number: Count
    created_at: float
    files: tuple[StoredFile, ...]

    @property
    def name(self) -> str:
        """Its file's name; names sort as the offsets do, and no two saves ever have the same."""
        return f"{self.offset:020}-{self.writer_epoch}-{self.save_number:08}.json"

    def path(self, file: StoredFile) -> str:
        """Where a file of it lies. No path is ever used a second time: see `state/snapshots.py`."""
        return f"{self.writer_epoch}/{file.save_number:08}-{file.sha256}"

    def sizes(self) -> dict[str, int]:
        """Bytes of its files, by path."""
        return {self.path(file): file.size for file in self.files}


def is_manifest_name(name: str) -> bool:
    """Whether a file is called as a manifest is."""
    return _NAME.fullmatch(name) is not None


def offset_of(name: str) -> int:
    """The offset in a manifest's name."""
    return int(name[:20])


def writer_epoch_of(name: str) -> str:
    """The owner in a manifest's name."""
    return name[21:37]


def encode_manifest(manifest: SnapshotManifest) -> bytes:
    """JSON, to be read by people too."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


class _FormatHeader(msgspec.Struct):
    format: int


# Tasks are opened side by side, and msgspec 0.22 crashes where two threads are the first to decode a type.
_decode_format: Final = msgspec.json.Decoder(_FormatHeader).decode
_decode_manifest: Final = msgspec.json.Decoder(SnapshotManifest).decode


def decode_manifest(name: str, content: bytes) -> SnapshotManifest | None:
    """What `encode` gave under this name; None where it is damaged.

    Raises:
        StateError: it is whole, and of a format that this program does not read.
    """
    try:
        version = _decode_format(content).format
        if version != MANIFEST_FORMAT:
            raise StateError(
                f"snapshot {name} is of format {version}, this program reads format {MANIFEST_FORMAT}: use the release that wrote "
                "it, or another --snapshots"
            )
        manifest = _decode_manifest(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return manifest if manifest.name == name else None


def describe_differences(ours: Any, theirs: Any, name: str = "") -> Iterator[str]:
    """In words, each leaf in which two JSON values differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from describe_differences(ours.get(key), theirs.get(key), f"{name}.{key}" if name else key)
    elif ours != theirs:
        yield f"{name} is {ours!r}, was {theirs!r}"
