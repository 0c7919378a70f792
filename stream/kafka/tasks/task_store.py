"""A task's store on disk: its identity, its snapshots and its statistics."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from prectr.state.encoding import DAMAGE
from prectr.state.errors import Remedy, StateError, SystemLimitError
from prectr.state.failpoints import Failpoint, failpoint
from prectr.state.identity import IDENTITY_KEY, StoreIdentity, decode_identity, encode_identity
from prectr.state.snapshots.snapshotter import SnapshotProgress, Snapshotter
from prectr.state.snapshots.task_snapshots import TaskSnapshots
from prectr.state.store import Store, StoreOptions, StoreStats
from prectr.stream.kafka.tasks.task_context import SnapshotSettings

_STATS_INTERVAL: Final = 10.0
"""Seconds between two samples of RocksDB's statistics, each of which takes half a millisecond."""
_STORE_OPTIONS: Final = StoreOptions(statistics=True)
_log = logging.getLogger(__name__)


class TaskStore:
    """The store of one task.

    Attributes:
        store: the open store; `restore_newer` replaces it.
        stats: RocksDB's statistics as of the last sample.
    """

    def __init__(self, path: Path, identity: StoreIdentity) -> None:
        """Open the store, or create it.

        Raises:
            StateError: another process has it open, or it belongs to another task or configuration.
        """
        self._identity = identity
        self._snapshotter: Snapshotter | None = None
        self.stats: StoreStats | None = None
        self._sampled_at = float("-inf")
        self.store = Store(path, _STORE_OPTIONS)
        try:
            self._check_identity()
        except BaseException:
            self.store.close()
            raise

    @property
    def snapshot_progress(self) -> SnapshotProgress | None:
        """Progress of the snapshots; None where none are taken."""
        return None if self._snapshotter is None else self._snapshotter.progress

    def restore_newer(self, settings: SnapshotSettings, task: str, next_offset: int) -> bool:
        """Replace the store by the newest snapshot if that is ahead of `next_offset`; take snapshots from now on.

        Returns:
            Whether the store was replaced.
        """
        snapshots = TaskSnapshots(settings.storage, task, self._identity)
        newest = snapshots.newest()
        is_newer = newest is not None and newest.offset > next_offset
        if is_newer:
            self.store.close()
            try:
                restored = snapshots.restore(self.store.path, next_offset, self._problem_of)
            finally:
                self.store = Store(self.store.path, _STORE_OPTIONS)
            if restored is not None:
                extra = {"stage": self._identity.stage, "partition": self._identity.partition}
                _log.info("%s: restored from the snapshot at offset %d", task, restored, extra=extra)
            self._check_identity()
        self._snapshotter = Snapshotter(snapshots, self.store, settings.interval)
        return is_newer

    def write(self, changes: Mapping[bytes, bytes | None], next_offset: int) -> None:
        """Write a batch of changes, which are the state as of `next_offset`; start a snapshot if one is due."""
        self.store.write(changes)
        failpoint(Failpoint.AFTER_WRITE)
        if time.monotonic() - self._sampled_at >= _STATS_INTERVAL:
            self.sample_stats()
        if self._snapshotter is not None and self._snapshotter.is_due():
            self._snapshotter.start(next_offset)

    def sample_stats(self) -> None:
        """Read RocksDB's statistics."""
        self.stats = self.store.stats()
        self._sampled_at = time.monotonic()

    def close(self) -> None:
        """Close the store; a snapshot in progress is given a moment to finish."""
        if self._snapshotter is not None:
            self._snapshotter.close()
        self.store.close()

    def _problem_of(self, folder: Path) -> str:
        """Return what is wrong with the store of a snapshot that has been downloaded to `folder`; empty if nothing."""
        try:
            store = Store(folder, StoreOptions(read_only=True))
            try:
                (stored,) = store.get_many([IDENTITY_KEY])
                theirs = None if stored is None else decode_identity(stored)
            finally:
                store.close()
        except SystemLimitError:
            raise
        except (StateError, *DAMAGE) as error:
            return f"its state cannot be read ({error})"
        if theirs is None:
            return "its state does not say which system it belongs to"
        return "" if theirs == self._identity else f"its state is of another system: {self._identity.diff(theirs)}"

    def _check_identity(self) -> None:
        (stored,) = self.store.get_many([IDENTITY_KEY])
        if stored is None:
            self.store.write({IDENTITY_KEY: encode_identity(self._identity)})
            return
        try:
            theirs = decode_identity(stored)
        except DAMAGE as error:
            raise StateError(
                f"{self.store.path}: another version of this program wrote the state: delete the folder to rebuild it "
                "from the log"
            ) from error
        if theirs != self._identity:
            raise StateError(
                f"{self.store.path}: the state is of another system: {self._identity.diff(theirs)}",
                Remedy.OTHER_STATE_DIR,
                Remedy.ORIGINAL_SETTINGS,
            )
