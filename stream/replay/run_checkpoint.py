"""Consistent cuts of an embedded run: everything that it needs to go on after a crash, as of one place in the log.

A cut is a folder `checkpoints/NNNNNNNN`: copies of all stores (`state/`), the state of every sink (`sinks/NAME/`)
and `checkpoint.json`. It is written aside and renamed when whole, so a cut is there or it is not.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from prectr.state.errors import CheckpointError, UsageError
from prectr.state.failpoints import failpoint
from prectr.stream.sinks.example_sink import ExampleSink
from prectr.stream.sinks.run_digest import RunDigestState

CHECKPOINT_FORMAT: Final = 1
_MAX_CHECKPOINTS: Final = 2
_MANIFEST: Final = "checkpoint.json"


class LogFileProgress(msgspec.Struct):
    """A file of the log as it was when reading began, and how much of it has been read.

    first_place: place of its first line in the whole log. done: it was read to its end.
    """

    path: str
    size: int
    sha256: str
    first_offset: int
    lines_read: int = 0
    done: bool = False


class _FormatHeader(msgspec.Struct):
    format: int


class ReplayCheckpoint(msgspec.Struct, kw_only=True):
    """`checkpoint.json`: where the run stood. config: every setting that decides the result, by name.

    tally: digests and counts of what was put out. examples_bytes, dead_letter_bytes: lengths of the output files.
    finished: the log was flushed, nothing can follow.
    """

    format: int = CHECKPOINT_FORMAT
    config: dict[str, str]
    files: list[LogFileProgress]
    lines_read: int
    digest: RunDigestState
    examples_bytes: int | None
    dead_letter_bytes: int
    dead_letters: dict[str, int]
    seconds: float
    finished: bool = False


def list_checkpoints(folder: Path) -> list[Path]:
    """The whole cuts in `folder`, newest first."""
    if not folder.is_dir():
        return []
    return sorted(
        (checkpoint for checkpoint in folder.iterdir() if checkpoint.name.isdigit() and checkpoint.is_dir()),
        reverse=True,
    )


ManifestT = TypeVar("ManifestT", bound=msgspec.Struct)


def read_checkpoint(folder: Path) -> ReplayCheckpoint:
    """Read the manifest of a replay's cut in `folder`; raises CheckpointError as `read_manifest`."""
    return read_manifest(folder, ReplayCheckpoint)


def read_manifest(folder: Path, manifest_type: type[ManifestT]) -> ManifestT:
    """Read the manifest of the cut in `folder`.

    Raises:
        CheckpointError: it is missing, damaged or of another format version.
    """
    path = folder / _MANIFEST
    try:
        stored = path.read_bytes()
        version = msgspec.json.decode(stored, type=_FormatHeader).format
        manifest = msgspec.json.decode(stored, type=manifest_type) if version == CHECKPOINT_FORMAT else None
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(
            f"{path}: the checkpoint cannot be read ({error}): delete the folder {folder}, "
            "then the run goes on from the one before, or start over with --restart"
        ) from error
    if manifest is None:
        raise CheckpointError(
            f"{path}: the checkpoint has format {version}, this program reads {CHECKPOINT_FORMAT}: start over with --restart"
        )
    return manifest


def config_diff(one: Mapping[str, str], other: Mapping[str, str], other_verb: str) -> str:
    """The settings that differ, in words: "seed is 1, was 2", where `word` is "was"; empty where none does."""
    return "; ".join(
        f"{name} is {one.get(name, 'not set')}, {other_verb} {other.get(name, 'not set')}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    )


def check_config(run_dir: Path, current: Mapping[str, str], stored: Mapping[str, str], remedies: str) -> None:
    """Refuse to go on with a run under other settings than it was begun with.

    else_do: the ways out besides going back to the old ones, to be put behind a comma.

    Raises:
        UsageError: a setting differs; each is named.
    """
    differences = config_diff(current, stored, "was")
    if differences:
        raise UsageError(
            f"{run_dir}: the run was begun with another configuration: {differences}. Go on with the old one, {remedies}"
        )


class CheckpointWriter:
    """Writes the next cut: fill `aside`, then `commit` with its manifest (a `Cut`, or a live run's)."""

    def __init__(self, folder: Path) -> None:
        """Begin a cut in `folder`, aside of the whole ones."""
        newest = list_checkpoints(folder)
        self._folder = folder
        self._target = folder / f"{int(newest[0].name) + 1 if newest else 1:08d}"
        self.staging = folder / f"{self._target.name}.tmp"
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)

    def save_sinks(self, sinks: Mapping[str, ExampleSink]) -> None:
        """Write the state of every sink; `load_sinks` takes it up."""
        for name, sink in sinks.items():
            folder = _sink_folder(self.staging, name)
            folder.mkdir(parents=True)
            sink.save(folder)

    def commit(self, manifest: msgspec.Struct) -> Path:
        """Write the manifest, make all of it durable, rename it into place and remove old cuts."""
        (self.staging / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        for folder, _, files in os.walk(self.staging):
            for name in files:
                _fsync(Path(folder, name))
            _fsync(Path(folder))
        failpoint("checkpoint")
        self.staging.rename(self._target)
        _fsync(self._folder)
        for old in list_checkpoints(self._folder)[_MAX_CHECKPOINTS:]:
            shutil.rmtree(old)
        return self._target


def load_sinks(checkpoint: Path, sinks: Mapping[str, ExampleSink]) -> None:
    """Give every sink the state that it had at the cut."""
    for name, sink in sinks.items():
        sink.load(_sink_folder(checkpoint, name))


def _sink_folder(checkpoint: Path, name: str) -> Path:
    return checkpoint / "sinks" / name


def restore_stores(checkpoint: Path, state: Path) -> None:
    """Lay out the stores of a cut as the live state; table files, which never change, are hard links."""
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(checkpoint / "state", state, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(".sst"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
