"""The embedded runner: replays logs through both stages into the sinks, and resumes after a crash."""

import gc
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from prectr.state.errors import InputError, Remedy, UsageError
from prectr.state.lock import FolderLock
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import ResultPage
from prectr.stream.events.event_batch import NO_TIME, EventBatch
from prectr.stream.events.ignored_fields import IgnoredFields
from prectr.stream.gc_control import manual_gc
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.ordering.released_batch import ReleasedBatch
from prectr.stream.readers import LogBatch, Order, open_log, read_in_order
from prectr.stream.replay.disorder import Disorder
from prectr.stream.replay.local_tasks import EmbeddedTasks
from prectr.stream.replay.log_files import LINE_BITS, LogFiles, offsets_of
from prectr.stream.replay.rejections import RejectionKind, Rejections
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
from prectr.stream.sinks.example_file import ExampleFile
from prectr.stream.sinks.example_sink import ExampleSink
from prectr.stream.sinks.pending_scores import PendingScores
from prectr.stream.sinks.run_digest import RunDigest
from prectr.stream.sinks.top_queries import TopQueries

STEP_LINES: Final = 8_192
"""Lines per step, over all tasks; does not change the result."""
_SPOOL: Final = "examples.jsonl.zst"
"""In the run folder: the lines of an examples file in Parquet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """Options of a run; all but `order` do not change its result.

    Attributes:
        order: of the lines of several files: merged by event time, or file after file as given.
        examples: file for the examples, for other programs to read; its suffix names the format.
        scores: receives the scores of the sinks that are models, to be written to `examples`; None: there are none.
        checkpoint_interval: seconds between checkpoints; 0 for one after every step.
        restart: delete what an earlier run left in the run folder.
    """

    order: Order = "time"
    examples: Path | None = None
    scores: PendingScores | None = None
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
        log = open_log(paths)
        self._run_dir = run_dir
        self._order = options.order
        self._config = {**config, "order": options.order}
        self._allowed_lateness = round(pipeline.allowed_lateness * 1000)
        self._max_skew = round(pipeline.max_clock_skew * 1000)
        self._lock = FolderLock(run_dir)
        self._checkpoint_dir = run_dir / "checkpoints"
        self._state_dir = run_dir / "state"
        self._checkpoint_interval = options.checkpoint_interval
        self._example_path = options.examples
        self._ignored_fields = IgnoredFields()
        self.top_queries = TopQueries()
        self._scores = options.scores or PendingScores()
        self._sinks = {**sinks, "top_queries": self.top_queries}
        if options.examples is not None:
            self._sinks["pending_scores"] = self._scores
        self.digest = RunDigest()
        self.disorder = Disorder()
        self.lines_read = 0
        self.finished = False
        self._previous_seconds = 0.0
        self._started_at = time.monotonic()
        self._has_uncheckpointed = False
        try:
            if options.restart:
                self._clear()
            checkpoint = self._restore_newest_checkpoint()
            self._log = LogFiles(log, [] if checkpoint is None else checkpoint.files)
            self._parts = self._log.parts(self._order, run_dir, finished=checkpoint is not None and checkpoint.finished)
            self._open_outputs(checkpoint)
            self.tasks = EmbeddedTasks(self._state_dir, pipeline, label, self._measure_disorder)
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
        return self._log.bytes_read

    @property
    def bytes_total(self) -> int:
        """Bytes of all files that were given."""
        return self._log.bytes_total

    @property
    def files(self) -> list[LogFileProgress]:
        """The files of the log, in the order in which they were first given."""
        return self._log.progress

    @property
    def dead_letters(self) -> dict[str, int]:
        """Number of dead letters by reason."""
        return self._rejections.counts

    @property
    def rejections(self) -> list[RejectionKind]:
        """Kinds of dead letters, the most frequent first."""
        return self._rejections.kinds

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
            self._finish_examples()
            return True
        with manual_gc():
            if not self._read_log(flush, progress, stop):
                self._write_checkpoint()
                return False
            if flush:
                self._consume(self.tasks.flush())
                for sink in self._sinks.values():
                    sink.flush()
                self._write_scored()
                self.finished = True
                self._write_checkpoint()
            else:
                if self._has_uncheckpointed:
                    self._write_checkpoint()
                self._consume(self.tasks.end_sources())
            self._finish_examples()
            self._rejections.flush()
            progress(self)
            return True

    def close(self) -> None:
        """Close all files and release the run folder."""
        self.tasks.close()
        if self._example_file is not None:
            self._example_file.close()
        self._rejections.close()
        self._lock.release()

    def _read_log(self, flush: bool, progress: Callable[["Replay"], None], stop: Callable[[], bool]) -> bool:
        """Process the remaining lines; return False if `stop` ended the run."""
        for part in self._parts:
            self._ignored_fields.look_at_columns(part.file.path, part.file.ignored_columns())
        last_checkpoint = time.monotonic()
        batches = read_in_order(self._parts, STEP_LINES, order=self._order, whole_lines=not flush)
        try:
            for batch in batches:
                self._process(batch)
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
        return True

    def _process(self, batch: LogBatch) -> None:
        self._ignored_fields.look_at(batch.lines)
        released = self.tasks.process(batch.lines, self.lines_read, offsets_of(batch.runs)) if batch.lines else []
        self.lines_read += len(batch.lines)
        self._log.advance(batch)
        self._has_uncheckpointed |= bool(batch.lines or batch.ended)
        self._consume(released)

    def _measure_disorder(self, batch: EventBatch) -> None:
        """Add decoded events to the disorder of their files and of the whole log."""
        limits = self._allowed_lateness, self._max_skew
        times, offsets = batch.times(), batch.offsets
        is_valid = times != NO_TIME
        self.disorder.add(times[is_valid], *limits)
        if isinstance(offsets, range):
            self._log.file_of(offsets[0]).disorder.add(times[is_valid], *limits)
            return
        files = np.array(offsets, dtype=np.int64) >> LINE_BITS
        for index in np.unique(files).tolist():
            self._log.progress[index].disorder.add(times[is_valid & (files == index)], *limits)

    def _consume(self, batches: Sequence[ReleasedBatch]) -> None:
        for batch in batches:
            for record in batch.rejected:
                self._rejections.add(record, self._log.locate)
            self.digest.add(batch.examples)
            for sink in self._sinks.values():
                sink.consume(batch.examples, batch.watermark)
            self._write_scored()

    def _write_scored(self) -> None:
        if self._example_file is not None:
            for example, scores in self._scores.scored():
                self._example_file.write(example, scores)

    def _finish_examples(self) -> None:
        """Complete the examples file; pages that no model has scored yet, which only a later call can, are in it."""
        if self._example_file is not None:
            for example, scores in self._scores.rest():
                self._example_file.write(example, scores)
            self._example_file.finish()

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
                dead_letter_bytes=self._rejections.flush(),
                dead_letters=self.dead_letters,
                rejections=self.rejections,
                disorder=self.disorder,
                seconds=self.seconds,
                finished=self.finished,
            )
        )
        self._has_uncheckpointed = False
        gc.collect()

    def _clear(self) -> None:
        shutil.rmtree(self._checkpoint_dir, ignore_errors=True)
        clear_stores(self._state_dir)
        for name in ("report.json", "report.html", "resamples.json", "dead-letters.jsonl", _SPOOL):
            (self._run_dir / name).unlink(missing_ok=True)

    def _open_outputs(self, checkpoint: ReplayCheckpoint | None) -> None:
        """Open the output files as they were at the checkpoint, and continue its counts."""
        if checkpoint is None:
            clear_stores(self._state_dir)
        self._rejections = Rejections(
            self._run_dir / "dead-letters.jsonl",
            0 if checkpoint is None else checkpoint.dead_letter_bytes,
            [] if checkpoint is None else checkpoint.rejections,
            {} if checkpoint is None else checkpoint.dead_letters,
        )
        length = 0 if checkpoint is None or checkpoint.examples_bytes is None else checkpoint.examples_bytes
        self._example_file = (
            None if self._example_path is None else ExampleFile(self._example_path, self._run_dir / _SPOOL, length)
        )
        if checkpoint is None:
            return
        self.lines_read, self.finished = checkpoint.lines_read, checkpoint.finished
        self.digest = RunDigest(checkpoint.digest)
        self.disorder = checkpoint.disorder
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
