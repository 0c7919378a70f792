"""The embedded runner: replays logs through both stages into the sinks, and resumes after a crash."""

import gc
import hashlib
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prectr.state.errors import CheckpointError, InputError, Remedy, UsageError
from prectr.state.lock import FolderLock
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import ResultPage
from prectr.stream.events.ignored_fields import IgnoredFields
from prectr.stream.gc_control import manual_gc
from prectr.stream.join.operator import RejectedRecord
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.ordering.released_batch import ReleasedBatch
from prectr.stream.readers import LogFile, open_log
from prectr.stream.replay.local_tasks import EmbeddedTasks
from prectr.stream.replay.run_checkpoint import (
    CheckpointWriter,
    LogFileProgress,
    ReplayCheckpoint,
    check_config,
    clear_stores,
    list_checkpoints,
    load_sinks,
    read_checkpoint,
    restore_stores,
)
from prectr.stream.sinks.dead_letters import DeadLetter, DeadLetterFile
from prectr.stream.sinks.example_file import ExampleFile
from prectr.stream.sinks.example_sink import ExampleSink
from prectr.stream.sinks.run_digest import RunDigest
from prectr.stream.sinks.top_queries import TopQueries

STEP_LINES: Final = 8_192
"""Lines per step, over all tasks; does not change the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """Options of a run that do not change its result.

    Attributes:
        examples: file for the examples, for other programs to read.
        checkpoint_interval: seconds between checkpoints; 0 for one after every step.
        restart: delete what an earlier run left in the run folder.
    """

    examples: Path | None = None
    checkpoint_interval: float = 30.0
    restart: bool = False


class Replay:
    """One run over a log. All its files are in `run_dir`; the same call resumes it after a crash."""

    def __init__(
        self,
        paths: Sequence[str],
        run_dir: Path,
        pipeline: PipelineConfig,
        *,
        config: Mapping[str, str],
        sinks: Mapping[str, ExampleSink],
        label: Callable[[str, ResultPage], None],
        options: RunnerOptions = RunnerOptions(),
    ) -> None:
        """Open the log and restore the newest checkpoint, if there is one.

        Args:
            paths: files, folders and patterns of the log.
            config: the whole configuration by name (the pipeline's and the sinks'); a run resumes only with the same.
            sinks: consumers of the examples, by name.
            label: fills in missing relevance levels of a page in place.

        Raises:
            UsageError: the configuration differs from the run's, or the log does not continue the one read so far.
            InputError: a file of the log cannot be read.
            CheckpointError, StateError: what is in `run_dir` cannot be restored.
        """
        self._log_files = open_log(paths)
        self._run_dir = run_dir
        self._config = dict(config)
        self._lock = FolderLock(run_dir)
        self._checkpoint_dir = run_dir / "checkpoints"
        self._state_dir = run_dir / "state"
        self._checkpoint_interval = options.checkpoint_interval
        self._example_path = options.examples
        self._ignored_fields = IgnoredFields()
        self.top_queries = TopQueries()
        self._sinks = {**sinks, "top_queries": self.top_queries}
        self.digest = RunDigest()
        self.files: list[LogFileProgress] = []
        self.lines_read = 0
        self.dead_letters: dict[str, int] = {}
        self.finished = False
        self._previous_seconds = 0.0
        self._started_at = time.monotonic()
        self._has_uncheckpointed = False
        try:
            if options.restart:
                self._clear()
            self._restore(pipeline, label)
        except BaseException:
            self._lock.release()
            raise

    # --- progress -------------------------------------------------------------------------------------------------

    @property
    def pages(self) -> int:
        """Examples emitted so far."""
        return self.digest.pages

    @property
    def outcomes(self) -> Outcomes:
        """Outcome counts of all records so far, over all tasks."""
        return self.tasks.outcomes

    @property
    def seconds(self) -> float:
        """Running time, over all attempts at this run."""
        return self._previous_seconds + time.monotonic() - self._started_at

    @property
    def bytes_read(self) -> int:
        """Bytes of the log read so far, of `bytes_total`."""
        remaining = self._remaining_files
        return (
            self.bytes_total
            - sum(file.identity.size for file in remaining)
            + (remaining[0].bytes_read if remaining else 0)
        )

    # --- the run --------------------------------------------------------------------------------------------------

    def run(
        self,
        *,
        flush: bool,
        progress: Callable[["Replay"], None] = lambda replay: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Read the log to its end.

        Without `flush` the run can continue with further files. Its output by then is that of a log whose sources
        have all ended; continuing rolls back to the checkpoint before the end.

        Args:
            flush: the log has ended for good: close every page and train the last batch.
            progress: called after every step.
            stop: polled after every step; True writes a checkpoint and ends the run.

        Returns:
            False if `stop` ended the run.
        """
        if self.finished:
            return True
        with manual_gc():
            if not self._read_log(progress, stop):
                self._write_checkpoint()
                return False
            if flush:
                self._consume(self.tasks.flush())
                for sink in self._sinks.values():
                    sink.flush()
                self.finished = True
                self._write_checkpoint()
            else:
                if self._has_uncheckpointed:
                    self._write_checkpoint()
                self._consume(self.tasks.end_sources())
            if self._example_file is not None:
                self._example_file.flush()
            progress(self)
            return True

    def close(self) -> None:
        """Close all files and release the run folder."""
        self.tasks.close()
        if self._example_file is not None:
            self._example_file.close()
        self._dead_letter_file.close()
        self._lock.release()

    def _read_log(self, progress: Callable[["Replay"], None], stop: Callable[[], bool]) -> bool:
        """Process the remaining lines; return False if `stop` ended the run."""
        last_checkpoint = time.monotonic()
        while self._remaining_files:
            log_file = self._remaining_files[0]
            file_progress = self._start_file(log_file)
            try:
                for batch in log_file.batches(file_progress.lines_read, STEP_LINES):
                    self._ignored_fields.look_at(batch.lines)
                    released = self.tasks.process(batch.lines, self.lines_read)
                    self.lines_read += len(batch.lines)
                    file_progress.lines_read += len(batch.lines)
                    self._consume(released)
                    progress(self)
                    if stop():
                        return False
                    if time.monotonic() - last_checkpoint >= self._checkpoint_interval:
                        self._write_checkpoint()
                        last_checkpoint = time.monotonic()
            except InputError:
                # Keep what could be read: once the file is repaired, the run resumes after it.
                self._write_checkpoint()
                raise
            file_progress.done = self._has_uncheckpointed = True
            self._remaining_files.pop(0)
        return True

    def _start_file(self, log_file: LogFile) -> LogFileProgress:
        identity = log_file.identity
        for file_progress in self.files:
            if file_progress.path == identity.path:
                file_progress.size, file_progress.sha256 = identity.size, identity.head_sha256
                return file_progress
        file_progress = LogFileProgress(identity.path, identity.size, identity.head_sha256, self.lines_read)
        self.files.append(file_progress)
        return file_progress

    def _consume(self, batches: Sequence[ReleasedBatch]) -> None:
        for batch in batches:
            for record in batch.rejected:
                self._dead_letter(record)
            self.digest.add(batch.examples)
            for sink in self._sinks.values():
                sink.consume(batch.examples, batch.watermark)
            if self._example_file is not None:
                for example in batch.examples:
                    self._example_file.write(example)

    def _dead_letter(self, record: RejectedRecord) -> None:
        file = self.files[
            bisect_right(self.files, record.offset, key=lambda file_progress: file_progress.first_offset) - 1
        ]
        self.dead_letters[record.reason] = self.dead_letters.get(record.reason, 0) + 1
        self._dead_letter_file.append(
            DeadLetter(
                value=record.value,
                topic=file.path,
                partition=0,
                offset=record.offset - file.first_offset,
                reason=record.reason,
                detail=record.detail,
            )
        )

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def _write_checkpoint(self) -> None:
        writer = CheckpointWriter(self._checkpoint_dir)
        self.tasks.checkpoint(writer.staging / "state")
        writer.save_sinks(self._sinks)
        writer.commit(
            ReplayCheckpoint(
                config=self._config,
                files=self.files,
                lines_read=self.lines_read,
                digest=self.digest.state(),
                examples_bytes=None if self._example_file is None else self._example_file.flush(),
                dead_letter_bytes=self._dead_letter_file.flush(),
                dead_letters=self.dead_letters,
                seconds=self.seconds,
                finished=self.finished,
            )
        )
        self._has_uncheckpointed = False
        gc.collect()

    def _clear(self) -> None:
        shutil.rmtree(self._checkpoint_dir, ignore_errors=True)
        clear_stores(self._state_dir)
        for name in ("report.json", "report.html", "dead-letters.jsonl"):
            (self._run_dir / name).unlink(missing_ok=True)

    def _restore(self, pipeline: PipelineConfig, label: Callable[[str, ResultPage], None]) -> None:
        checkpoint = self._restore_newest_checkpoint()
        if checkpoint is None:
            clear_stores(self._state_dir)
        self.bytes_total = sum(file.identity.size for file in self._log_files)
        self._remaining_files = list(self._files_to_read(checkpoint))
        self.tasks = EmbeddedTasks(self._state_dir, pipeline, label)
        self._dead_letter_file = DeadLetterFile(
            self._run_dir / "dead-letters.jsonl", 0 if checkpoint is None else checkpoint.dead_letter_bytes
        )
        length = 0 if checkpoint is None or checkpoint.examples_bytes is None else checkpoint.examples_bytes
        self._example_file = None if self._example_path is None else ExampleFile(self._example_path, length)
        if checkpoint is None:
            return
        self.files, self.lines_read, self.finished = checkpoint.files, checkpoint.lines_read, checkpoint.finished
        self.digest = RunDigest(checkpoint.digest)
        self.dead_letters = checkpoint.dead_letters
        self._previous_seconds = checkpoint.seconds

    def _restore_newest_checkpoint(self) -> ReplayCheckpoint | None:
        """Restore the stores and every sink from the newest complete checkpoint."""
        for folder in list_checkpoints(self._checkpoint_dir):
            checkpoint = read_checkpoint(folder)
            check_config(self._run_dir, self._config, checkpoint.config, Remedy.OTHER_RUN_DIR, Remedy.RESTART)
            if (checkpoint.examples_bytes is None) != (self._example_path is None):
                started = "without" if checkpoint.examples_bytes is None else "with"
                raise UsageError(
                    f"{self._run_dir}: the run was started {started} an examples file: do the same,", Remedy.RESTART
                )
            restore_stores(folder, self._state_dir)
            load_sinks(folder, self._sinks)
            return checkpoint
        return None

    def _files_to_read(self, checkpoint: ReplayCheckpoint | None) -> Iterator[LogFile]:
        """Select the files that are left to read, after those of the checkpoint."""
        progress_by_path = {read.path: read for read in checkpoint.files} if checkpoint is not None else {}
        given_paths = [file.identity.path for file in self._log_files]
        for path in given_paths:
            if given_paths.count(path) > 1:
                raise UsageError(f"{path}: given twice: each file of a log is read once")
        for file_progress in progress_by_path.values():
            if not file_progress.done and file_progress.path not in given_paths:
                raise UsageError(
                    f"{file_progress.path}: the run stopped in the middle of this file: give it again,", Remedy.RESTART
                )
        previous: Path | None = None
        for file in self._log_files:
            progress = progress_by_path.get(file.identity.path)
            if progress is not None:
                _check_unchanged(file, progress)
                if progress.done and file.identity.size == progress.size:
                    continue
            if checkpoint is not None and checkpoint.finished:
                raise UsageError(
                    f"{self._run_dir}: the run is finished (its last pages were flushed), so {file.path} cannot "
                    "follow: flush only with the last part of a log,",
                    Remedy.RESTART,
                )
            if checkpoint is not None and progress is not None:
                # Its new lines must directly follow those that were read of it.
                if previous is not None or progress is not checkpoint.files[-1]:
                    previous_path = previous or checkpoint.files[-1].path
                    raise UsageError(
                        f"{file.path}: was read before {previous_path} and has grown since: "
                        "put its new lines into a file of their own,",
                        Remedy.RESTART,
                    )
                progress.done = False
            previous = file.path
            yield file


def _check_unchanged(file: LogFile, progress: LogFileProgress) -> None:
    """Check that a file that was read before still begins the same; it may have grown."""
    head_bytes = min(progress.size, 1 << 16)
    with open(progress.path, "rb") as handle:
        head = hashlib.sha256(handle.read(head_bytes)).hexdigest()
    if file.identity.size < progress.size or head != progress.sha256:
        raise CheckpointError(
            f"{file.path}: not the file that was read (its size or its first bytes differ): put the old one back,",
            Remedy.RESTART,
        )
