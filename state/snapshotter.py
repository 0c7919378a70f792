"""Takes a snapshot of a task's store now and then, and uploads it beside the task's own work."""

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
    """How a task's snapshots go, since it was opened; None: not one yet.

    offset, created (seconds since the epoch): of the last one that was saved; seconds, uploaded (bytes): what it took.
    size: bytes of all of it, with the files that were there already. failures: saves and prunings that did not work.
    damaged: snapshots found damaged when restoring.
    """

    offset: int | None = None
    created_at: float | None = None
    seconds: float = 0.0
    uploaded_bytes: int = 0
    failures: int = 0
    corrupt_count: int = 0
    total_bytes: int = 0


class Snapshotter:
    """Snapshots of one store. A failure is a warning and a count: the next one makes up for it."""

    def __init__(
        self,
        snapshots: TaskSnapshots,
        store: Store,
        interval: float = SNAPSHOT_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remove what a process that was killed has left; the first snapshot is due after `every` seconds.

        snapshots: from now on called by the snapshotter alone.
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
        """Whether it is time for a snapshot, and the last one is done."""
        return self._clock() >= self._next_due and not (self._upload and self._upload.is_alive())

    def start(self, offset: int) -> None:
        """Copy the store as it is now (hard links) and return; the upload goes on in a thread of its own.

        To be called when `due`, and while nothing writes to the store. offset: that the store stands at.
        """
        self._next_due = self._clock() + self._interval
        checkpoint = self._store.path.parent / f".{self._store.path.name}.checkpoint-{secrets.token_hex(4)}"
        try:
            self._store.checkpoint(checkpoint)
        except StateError as error:
            shutil.rmtree(checkpoint, ignore_errors=True)
            self._record_failure(error)
            return
        # A daemon: an upload that hangs must not keep the process from ending.
        self._upload = Thread(target=self._save, args=(checkpoint, offset), name="snapshot", daemon=True)
        self._upload.start()

    def close(self, timeout: float = 3.0) -> None:
        """Let an upload under way end; after `timeout` seconds give it up, which leaves no snapshot."""
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
                created=created_at,
                seconds=time.monotonic() - started,
                uploaded=result.uploaded_bytes,
                size=result.total_bytes,
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
                "%s: no snapshot this time: %s: trying again with the next",
                self._store.path.name,
                error,
                extra=task_log_fields(self._store.path.name),
            )
