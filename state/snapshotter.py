"""Periodic snapshots of a task's store, uploaded in the background."""

import logging
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Final

import msgspec

from prectr.state.errors import StateError
from prectr.state.snapshots import TaskSnapshots, task_log_fields
from prectr.state.store import Store

SNAPSHOT_INTERVAL: Final = 60.0
"""Seconds between snapshots."""
_log = logging.getLogger(__name__)


class SnapshotProgress(msgspec.Struct, frozen=True):
    """Statistics of a task's snapshots since it was opened.

    Attributes:
        offset: offset of the last snapshot saved; None if there is none yet.
        created_at: when it was taken, seconds since 1970.
        seconds: duration of its upload.
        uploaded_bytes: bytes uploaded for it.
        failures: saves and prunings that failed.
        corrupt_count: snapshots found corrupt when restoring.
        total_bytes: size of the last snapshot, including files that were stored already.
    """

    offset: int | None = None
    created_at: float | None = None
    seconds: float = 0.0
    uploaded_bytes: int = 0
    failures: int = 0
    corrupt_count: int = 0
    total_bytes: int = 0


class Snapshotter:
    """Takes the snapshots of one store. A failure is logged and counted, and the next snapshot replaces it."""

    def __init__(
        self,
        snapshots: TaskSnapshots,
        store: Store,
        interval: float = SNAPSHOT_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Delete the leftovers of a killed process; the first snapshot is due after `interval` seconds.

        Args:
            snapshots: from now on used by the snapshotter alone.
        """
        self.progress = SnapshotProgress(corrupt_count=snapshots.corrupt_count)
        self._snapshots = snapshots
        self._store = store
        self._interval = interval
        self._clock = clock
        self._next_due = clock() + interval
        self._upload: Thread | None = None
        self._closing = False
        for folder in store.path.parent.glob(f".{store.path.name}.checkpoint-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def is_due(self) -> bool:
        """Whether a snapshot is due and the previous upload has finished."""
        return self._clock() >= self._next_due and not (self._upload and self._upload.is_alive())

    def start(self, offset: int) -> None:
        """Checkpoint the store (hard links) and return; a thread uploads the checkpoint.

        Call it when `is_due` and while nothing writes to the store.

        Args:
            offset: offset of the next record that the store's state processes.
        """
        self._next_due = self._clock() + self._interval
        checkpoint = self._store.path.parent / f".{self._store.path.name}.checkpoint-{secrets.token_hex(4)}"
        try:
            self._store.checkpoint(checkpoint)
        except StateError as error:
            shutil.rmtree(checkpoint, ignore_errors=True)
            self._record_failure(error)
            return
        # A daemon thread: an upload that hangs must not keep the process alive.
        self._upload = Thread(target=self._save, args=(checkpoint, offset), name="snapshot", daemon=True)
        self._upload.start()

    def close(self, timeout: float = 3.0) -> None:
        """Wait up to `timeout` seconds for a running upload, then cancel it, which leaves no snapshot."""
        self._closing = True
        if self._upload is not None:
            self._upload.join(timeout)
            self._snapshots.stop()

    def _save(self, checkpoint: Path, offset: int) -> None:
        started, created_at = time.monotonic(), time.time()
        try:
            result = self._snapshots.save(checkpoint, offset, created_at)
            self.progress = msgspec.structs.replace(
                self.progress,
                offset=offset,
                created_at=created_at,
                seconds=time.monotonic() - started,
                uploaded_bytes=result.uploaded_bytes,
                total_bytes=result.total_bytes,
            )
            _log.debug(
                "%s: snapshot at offset %d, %d of %d bytes uploaded in %.1f s",
                self._store.path.name,
                offset,
                result.uploaded_bytes,
                result.total_bytes,
                self.progress.seconds,
                extra=task_log_fields(self._store.path.name),
            )
            self._snapshots.prune()
        except StateError as error:
            self._record_failure(error)
        finally:
            shutil.rmtree(checkpoint, ignore_errors=True)

    def _record_failure(self, error: StateError) -> None:
        self.progress = msgspec.structs.replace(self.progress, failures=self.progress.failures + 1)
        if not self._closing:
            _log.warning(
                "%s: snapshot failed: %s: will retry at the next interval",
                self._store.path.name,
                error,
                extra=task_log_fields(self._store.path.name),
            )
