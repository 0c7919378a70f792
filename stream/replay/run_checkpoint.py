"""Checkpoints of a run: everything that it needs to resume after a crash, as of one offset in the log.

A checkpoint is a folder `checkpoints/NNNNNNNN`: copies of all stores (`state/`), the state of every sink
(`sinks/NAME/`) and `checkpoint.json`. It is written to a staging folder and renamed when complete, so that a
checkpoint is either complete or absent.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec

from prectr.state.errors import CheckpointError, Remedy, UsageError
from prectr.state.failpoints import Failpoint, failpoint
from prectr.state.fsync import fsync_path
from prectr.state.identity import config_diff
from prectr.state.private_files import (
    make_empty_private_folder,
    make_private,
    make_private_folder,
    write_private_file,
)
from prectr.state.system_limits import limit_advice
from prectr.stream.replay.disorder import Disorder
from prectr.stream.replay.rejections import RejectionKind
from prectr.stream.sinks.example_sink import ExampleSink
from prectr.stream.sinks.run_digest import RunDigestState

CHECKPOINT_FORMAT: Final = 1
_MAX_CHECKPOINTS: Final = 2
_MANIFEST: Final = "checkpoint.json"
_STORE_NAME: Final = re.compile(r"(join|aggregate)-\d+")
_MISSING_FIELD: Final = "missing required field"
"""In the error of a manifest of another kind."""
_KINDS: Final = {"ReplayCheckpoint": "replay", "LiveCheckpoint": "live run"}

Count = Annotated[int, msgspec.Meta(ge=0)]


class LogFileProgress(msgspec.Struct):
    """A file of the log as it was when reading began, and how much of it has been read.

    Attributes:
        path: where it was; a file is known by its size and its beginning, wherever it is.
        size: in bytes.
        sha256: of its first 64 KiB.
        start_sha256: of its first 128 bytes.
        time: the time by which its last line was merged (`stream.readers.merge`), in ms.
        done: whether it was read to its end.
        disorder: of its events.
    """

    path: str
    size: Count
    sha256: str
    start_sha256: str
    lines_read: Count = 0
    time: int | None = None
    done: bool = False
    disorder: Disorder = msgspec.field(default_factory=Disorder)


class _FormatHeader(msgspec.Struct):
    format: int


class ReplayCheckpoint(msgspec.Struct, kw_only=True):
    """Content of `checkpoint.json`.

    Attributes:
        config: every setting that decides the result, by name.
        digest: digests and counts of the examples emitted so far.
        examples_bytes, dead_letter_bytes: lengths of the output files; None without an examples file.
        dead_letters: number of dead letters by reason.
        rejections: kinds of dead letters.
        disorder: of all events, in the order in which they were read.
        seconds: running time so far, over all attempts.
        finished: whether the log was flushed, after which no file can follow.
    """

    format: int = CHECKPOINT_FORMAT
    config: dict[str, str]
    files: list[LogFileProgress]
    lines_read: Count
    digest: RunDigestState
    examples_bytes: Count | None
    dead_letter_bytes: Count
    dead_letters: dict[str, Count]
    rejections: list[RejectionKind] = []
    disorder: Disorder = msgspec.field(default_factory=Disorder)
    seconds: float
    finished: bool = False


def list_checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints in `folder`, newest first."""
    if not folder.is_dir():
        return []
    return sorted(
        (checkpoint for checkpoint in folder.iterdir() if checkpoint.name.isdigit() and checkpoint.is_dir()),
        reverse=True,
    )


ManifestT = TypeVar("ManifestT", bound=msgspec.Struct)


def read_checkpoint(folder: Path) -> ReplayCheckpoint:
    """Read the manifest of a replay's checkpoint in `folder`; raises CheckpointError like `read_manifest`."""
    return read_manifest(folder, ReplayCheckpoint)


def read_manifest(folder: Path, manifest_type: type[ManifestT]) -> ManifestT:
    """Read the manifest of the checkpoint in `folder`.

    Raises:
        CheckpointError: it is missing, corrupt, of another format version or of another command.
    """
    path = folder / _MANIFEST
    remedy = Remedy.RESTART if manifest_type is ReplayCheckpoint else Remedy.EMPTY_RUN_DIR
    version = None
    try:
        stored = path.read_bytes()
        version = msgspec.json.decode(stored, type=_FormatHeader).format
        manifest = msgspec.json.decode(stored, type=manifest_type) if version == CHECKPOINT_FORMAT else None
    except PermissionError as error:
        raise CheckpointError(f"{path}: the checkpoint cannot be read: {error.strerror}") from error
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        if limit := limit_advice(error):
            raise CheckpointError(f"{path}: the checkpoint cannot be read ({error}): {limit}") from error
        if version is not None and _MISSING_FIELD in str(error):
            kind = _KINDS.get(manifest_type.__name__, "run")
            raise CheckpointError(
                f"{path}: not the checkpoint of a {kind}, but of another command ({error})", Remedy.OTHER_RUN_DIR
            ) from error
        raise CheckpointError(
            f"{path}: the checkpoint cannot be read ({error}): "
            f"delete the folder {folder} to resume from the checkpoint before it,",
            remedy,
        ) from error
    if manifest is None:
        raise CheckpointError(
            f"{path}: the checkpoint has format {version}, this program reads {CHECKPOINT_FORMAT}", remedy
        )
    return manifest


def check_config(run_dir: Path, current: Mapping[str, str], stored: Mapping[str, str], *remedies: Remedy) -> None:
    """Check that a run is resumed with the settings that it was started with.

    Args:
        remedies: alternatives to restoring the old settings, for the error.

    Raises:
        UsageError: a setting differs; each is named.
    """
    differences = config_diff(current, stored)
    if differences:
        raise UsageError(
            f"{run_dir}: the run was started with another configuration: {differences}: use the old one,", *remedies
        )


class CheckpointWriter:
    """Writes the next checkpoint: fill the folder `staging`, then `commit` the manifest."""

    def __init__(self, folder: Path) -> None:
        """Create the staging folder of a new checkpoint in `folder`."""
        newest = list_checkpoints(folder)
        self._folder = folder
        self._target = folder / f"{int(newest[0].name) + 1 if newest else 1:08d}"
        self.staging = folder / f"{self._target.name}.tmp"
        with self._named_errors():
            make_empty_private_folder(self.staging)

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the checkpoint."""
        with self._named_errors():
            write_private_file(self.staging / name, content)

    def save_sinks(self, sinks: Mapping[str, ExampleSink]) -> None:
        """Write the state of every sink, for `load_sinks`.

        Raises:
            TrainingError: the state of a trainer is not finite; the checkpoints that there are stay.
        """
        for name, sink in sinks.items():
            folder = _sink_folder(self.staging, name)
            with self._named_errors():
                folder.mkdir(parents=True)
                sink.save(folder)

    def commit(self, manifest: msgspec.Struct) -> Path:
        """Write the manifest, fsync everything, rename the folder into place and delete old checkpoints."""
        self.write(_MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        make_private(self.staging)
        for folder, _, files in os.walk(self.staging):
            for name in files:
                fsync_path(Path(folder, name))
            fsync_path(Path(folder))
        failpoint(Failpoint.CHECKPOINT)
        self.staging.rename(self._target)
        fsync_path(self._folder)
        for old in list_checkpoints(self._folder)[_MAX_CHECKPOINTS:]:
            shutil.rmtree(old)
        return self._target

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Errors of the file system that say what could not be written, and that nothing is lost."""
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"{error.filename or self.staging}: the checkpoint cannot be written ({error.strerror}); those before "
                f"it stay, and the run resumes from the newest: {limit_advice(error) or 'fix that and run it again'}"
            ) from error


def load_sinks(checkpoint: Path, sinks: Mapping[str, ExampleSink]) -> None:
    """Restore the state that every sink had at the checkpoint.

    Raises:
        CheckpointError: it is damaged; the message says which one can take its place.
    """
    for name, sink in sinks.items():
        folder = _sink_folder(checkpoint, name)
        try:
            sink.load(folder)
        except CheckpointError as error:
            if Remedy.OLDER_CHECKPOINT not in error.remedies:
                raise
            raise damaged(checkpoint, error.message) from error
        except (FileNotFoundError, ValueError, IndexError, RecursionError, msgspec.DecodeError) as error:
            raise damaged(checkpoint, f"{folder} cannot be restored ({error})") from error


def damaged(checkpoint: Path, reason: str) -> CheckpointError:
    """The error of a checkpoint that cannot be restored: from which one the run can resume without losing anything."""
    older = [each for each in list_checkpoints(checkpoint.parent) if each.name < checkpoint.name]
    if not older:
        return CheckpointError(reason, Remedy.EMPTY_RUN_DIR)
    return CheckpointError(
        f"{reason}: delete the folder {checkpoint} to resume from {older[0].name}, the checkpoint before it (its "
        "offsets go back with it: nothing is lost or counted twice),",
        Remedy.EMPTY_RUN_DIR,
    )


def _sink_folder(checkpoint: Path, name: str) -> Path:
    return checkpoint / "sinks" / name


def restore_stores(checkpoint: Path, state: Path) -> None:
    """Copy the stores of a checkpoint to the live state folder; SST files, which never change, are hard links."""
    clear_stores(state)
    shutil.copytree(checkpoint / "state", state, copy_function=_link_or_copy, dirs_exist_ok=True)


def clear_stores(state: Path) -> None:
    """Delete the stores in the live state folder, which may be a mount point or a link: it stays, like other files."""
    make_private_folder(state)
    for old in state.iterdir():
        if _STORE_NAME.fullmatch(old.name):
            shutil.rmtree(old)


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(".sst"):
        # Another file system, or one without hard links, gets copies.
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)
