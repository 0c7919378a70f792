"""The embedded runner: replays logs through both stages into the sinks, and goes on where a crash left it."""

import gc
import hashlib
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from prectr.state.errors import CheckpointError, InputError, UsageError
from prectr.state.lock import FolderLock
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Impression
from prectr.stream.join.operator import Refused
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.readers import LogFile, open_log
from prectr.stream.replay.local_tasks import EmbeddedTasks, Step
from prectr.stream.replay.run_checkpoint import (
    Cut,
    CutWriter,
    ReadFile,
    cuts,
    load_sinks,
    read_cut,
    refuse_other_config,
    restore_stores,
)
from prectr.stream.sinks.dead_letters import DeadLetter, DeadLetterFile
from prectr.stream.sinks.example_file import ExampleFile
from prectr.stream.sinks.example_sink import ExampleSink
from prectr.stream.sinks.run_digest import Tally
from prectr.stream.sinks.top_queries import BusiestQueries

STEP_LINES: Final = 8_192
"""Lines that go through the stages together, over all tasks; changes no result."""


class Replay:
    """One run over a log. Everything it makes lies in `run_dir`; the same call goes on after a crash.

    `config` is the whole configuration by name (the pipeline's and the sinks'): a run goes on only with the same.
    """

    def __init__(
        self,
        paths: Sequence[str],
        run_dir: Path,
        pipeline: PipelineConfig,
        *,
        config: Mapping[str, str],
        sinks: Mapping[str, ExampleSink],
        label: Callable[[str, Impression], None],
        examples: Path | None = None,
        cut_every: float = 30.0,
        restart: bool = False,
    ) -> None:
        """Open the log and take up the newest cut, if there is one.

        cut_every: seconds between cuts, 0 for one after every step.

        Raises:
            UsageError: another configuration than the run was begun with, or a log that does not follow on.
            InputError: a file of the log cannot be read.
            CheckpointError, StateError: what is in `run_dir` cannot be taken up.
        """
        self._log = open_log(paths)
        self._run_dir = run_dir
        self._config = dict(config)
        self._lock = FolderLock(run_dir)
        self._checkpoints = run_dir / "checkpoints"
        self._state = run_dir / "state"
        self._cut_every = cut_every
        self._example_path = examples
        self.busiest = BusiestQueries()
        self._sinks = {**sinks, "busiest": self.busiest}
        self.tally = Tally()
        self.files: list[ReadFile] = []
        self.place = 0
        self.dead_letters: dict[str, int] = {}
        self.finished = False
        self._seconds_before = 0.0
        self._begun = time.monotonic()
        self._uncut = False
        try:
            if restart:
                self._clear()
            self._take_up(pipeline, label)
        except BaseException:
            self._lock.release()
            raise

    # --- what a progress bar, an exporter and the report ask ------------------------------------------------------

    @property
    def pages(self) -> int:
        """Examples put out so far."""
        return self.tally.pages

    @property
    def outcomes(self) -> Outcomes:
        """How every record ended so far, over all tasks."""
        return self.tasks.outcomes

    @property
    def seconds(self) -> float:
        """Time spent, over all goes at this run."""
        return self._seconds_before + time.monotonic() - self._begun

    @property
    def bytes_read(self) -> int:
        """Bytes of the log read so far, of `bytes_total`."""
        left = self._left
        return self.bytes_total - sum(file.identity.size for file in left) + (left[0].bytes_read if left else 0)

    # --- the run --------------------------------------------------------------------------------------------------

    def run(
        self,
        *,
        flush: bool,
        progress: Callable[["Replay"], None] = lambda replay: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Read the log to its end; False where `stop` said so first, with everything so far in a cut.

        flush: the log has ended for good, so close every page and train the last batch.

        Without `flush` the run can go on with further files; what it has put out by then is the same as if every
        source were past everything, and is taken back first when it goes on.
        """
        if self.finished:
            return True
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            if not self._read(progress, stop):
                self._cut()
                return False
            if flush:
                self._consume(self.tasks.flush())
                for sink in self._sinks.values():
                    sink.flush()
                self.finished = True
                self._cut()
            else:
                if self._uncut:
                    self._cut()
                self._consume(self.tasks.end())
            if self._example_file is not None:
                self._example_file.flush()
            progress(self)
            return True
        finally:
            gc.enable()
            gc.unfreeze()

    def close(self) -> None:
        """Close all files; the run can be taken up again."""
        self.tasks.close()
        if self._example_file is not None:
            self._example_file.close()
        self._dead.close()
        self._lock.release()

    def _read(self, progress: Callable[["Replay"], None], stop: Callable[[], bool]) -> bool:
        """Take all lines that are left; False where `stop` ended it."""
        last_cut = time.monotonic()
        while self._left:
            log_file = self._left[0]
            read = self._begin(log_file)
            try:
                for batch in log_file.batches(read.lines, STEP_LINES):
                    steps = self.tasks.step(batch.lines, self.place)
                    self.place += len(batch.lines)
                    read.lines += len(batch.lines)
                    self._consume(steps)
                    progress(self)
                    if stop():
                        return False
                    if time.monotonic() - last_cut >= self._cut_every:
                        self._cut()
                        last_cut = time.monotonic()
            except InputError:
                # What could be read is kept: with the file mended, the run goes on behind it.
                self._cut()
                raise
            read.done = self._uncut = True
            self._left.pop(0)
        return True

    def _begin(self, log_file: LogFile) -> ReadFile:
        identity = log_file.identity
        for read in self.files:
            if read.path == identity.path:
                read.size, read.sha256 = identity.size, identity.head_sha256
                return read
        read = ReadFile(identity.path, identity.size, identity.head_sha256, self.place)
        self.files.append(read)
        return read

    def _consume(self, steps: Sequence[Step]) -> None:
        for step in steps:
            for refused in step.refused:
                self._bury(refused)
            self.tally.add(step.examples)
            for sink in self._sinks.values():
                sink.consume(step.examples, step.line)
            if self._example_file is not None:
                for example in step.examples:
                    self._example_file.write(example)

    def _bury(self, refused: Refused) -> None:
        file = self.files[bisect_right(self.files, refused.place, key=lambda read: read.first_place) - 1]
        self.dead_letters[refused.reason] = self.dead_letters.get(refused.reason, 0) + 1
        self._dead.append(
            DeadLetter(
                value=refused.value,
                topic=file.path,
                partition=0,
                offset=refused.place - file.first_place,
                reason=refused.reason,
                detail=refused.detail,
            )
        )

    # --- cuts -----------------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        writer = CutWriter(self._checkpoints)
        self.tasks.checkpoint(writer.aside / "state")
        writer.save_sinks(self._sinks)
        writer.commit(
            Cut(
                config=self._config,
                files=self.files,
                place=self.place,
                tally=self.tally.state(),
                examples_bytes=None if self._example_file is None else self._example_file.flush(),
                dead_letter_bytes=self._dead.flush(),
                dead_letters=self.dead_letters,
                seconds=self.seconds,
                finished=self.finished,
            )
        )
        self._uncut = False
        gc.collect()

    def _clear(self) -> None:
        for folder in (self._checkpoints, self._state):
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("report.json", "report.html", "dead-letters.jsonl"):
            (self._run_dir / name).unlink(missing_ok=True)

    def _take_up(self, pipeline: PipelineConfig, label: Callable[[str, Impression], None]) -> None:
        cut = self._newest_cut()
        if cut is None:
            shutil.rmtree(self._state, ignore_errors=True)
        self.bytes_total = sum(file.identity.size for file in self._log)
        self._left = list(self._follow_on(cut))
        self.tasks = EmbeddedTasks(self._state, pipeline, label)
        self._dead = DeadLetterFile(self._run_dir / "dead-letters.jsonl", 0 if cut is None else cut.dead_letter_bytes)
        length = 0 if cut is None or cut.examples_bytes is None else cut.examples_bytes
        self._example_file = None if self._example_path is None else ExampleFile(self._example_path, length)
        if cut is None:
            return
        self.files, self.place, self.finished = cut.files, cut.place, cut.finished
        self.tally = Tally(cut.tally)
        self.dead_letters = cut.dead_letters
        self._seconds_before = cut.seconds

    def _newest_cut(self) -> Cut | None:
        """Restore the newest whole cut: the stores, and every sink."""
        for folder in cuts(self._checkpoints):
            cut = read_cut(folder)
            others = "name another --run-dir, or start over with --restart"
            refuse_other_config(self._run_dir, self._config, cut.config, others)
            if (cut.examples_bytes is None) != (self._example_path is None):
                begun = "without" if cut.examples_bytes is None else "with"
                raise UsageError(
                    f"{self._run_dir}: the run was begun {begun} --examples: do the same, or use --restart"
                )
            restore_stores(folder, self._state)
            load_sinks(folder, self._sinks)
            return cut
        return None

    def _follow_on(self, cut: Cut | None) -> Iterator[LogFile]:
        """The files that are left to read, after those that the cut has seen."""
        seen = {read.path: read for read in cut.files} if cut is not None else {}
        named = [file.identity.path for file in self._log]
        for path in named:
            if named.count(path) > 1:
                raise UsageError(f"{path}: named twice: each file of a log is read once")
        for part in seen.values():
            if not part.done and part.path not in named:
                raise UsageError(f"{part.path}: the run stopped in the middle of it: name it again, or use --restart")
        ahead: Path | None = None
        for file in self._log:
            read = seen.get(file.identity.path)
            if read is not None:
                _check_same(file, read)
                if read.done and file.identity.size == read.size:
                    continue
            if cut is not None and cut.finished:
                raise UsageError(
                    f"{self._run_dir}: the run is finished (its last pages were flushed), so {file.path} cannot "
                    "follow: use --no-flush on every part but the last, or start over with --restart"
                )
            if cut is not None and read is not None:
                # Its further lines must stand right behind those that were read of it.
                if ahead is not None or read is not cut.files[-1]:
                    before = ahead or cut.files[-1].path
                    raise UsageError(
                        f"{file.path}: was read before {before} and has grown since: put its new lines into a file "
                        "of their own, or start over with --restart"
                    )
                read.done = False
            ahead = file.path
            yield file


def _check_same(file: LogFile, read: ReadFile) -> None:
    """A file that was read before must begin as it did; it may have grown."""
    head_bytes = min(read.size, 1 << 16)
    with open(read.path, "rb") as handle:
        head = hashlib.sha256(handle.read(head_bytes)).hexdigest()
    if file.identity.size < read.size or head != read.sha256:
        raise CheckpointError(
            f"{file.path}: is another file now than the one that was read (its size or its first bytes differ): "
            "put the old one back, or start over with --restart"
        )
