"""Feeds sinks, such as trainers, with examples from Kafka; checkpoints contain the offsets."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from prectr.state.errors import CheckpointError, Remedy, UsageError
from prectr.state.identity import config_diff
from prectr.state.lock import FolderLock
from prectr.stream.coordination.folder_broadcast import receive_folder, send_folder
from prectr.stream.coordination.process_group import ProcessGroup, SingleProcess
from prectr.stream.coordination.synchronized_steps import StepSynchronizer
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import fetch_end_offsets
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.example_reader import ExampleReader, ReaderState
from prectr.stream.replay.run_checkpoint import (
    CHECKPOINT_FORMAT,
    CheckpointWriter,
    check_config,
    damaged,
    list_checkpoints,
    load_sinks,
    read_manifest,
)
from prectr.stream.sinks.example_file import ExampleFile
from prectr.stream.sinks.example_line import NO_SCORES
from prectr.stream.sinks.example_sink import ExampleSink
from prectr.stream.sinks.run_digest import RunDigest, RunDigestState
from prectr.stream.sinks.top_queries import TopQueries

_READER_STATE_FILE: Final = "reader.msgpack"
_IDLE_REPORT_INTERVAL: Final = 10.0
"""Seconds without a page after which the cause is looked up, and between two lookups."""
_LOG_EXTRA: Final = {"stage": "train"}
_log = logging.getLogger(__name__)


class LiveCheckpoint(msgspec.Struct, kw_only=True):
    """`checkpoint.json` of a live run; the reader's state is in a file beside it.

    Attributes:
        ranks: processes that shared the run.
        finished: the sinks were flushed, nothing can follow.
    """

    format: int = CHECKPOINT_FORMAT
    config: dict[str, str]
    topic: str
    digest: RunDigestState
    seconds: float
    ranks: int = 1
    finished: bool = False


class _Join(msgspec.Struct, array_like=True):
    """Message of each process at the start: the newest checkpoint that it has, and its settings."""

    checkpoint: str
    config: dict[str, str]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Join).decode


class LiveSinkRunner:
    """Feeds the sinks from `training-examples`; their state and the offsets form one checkpoint.

    Several processes can train data-parallel: each reads everything, and they process the same steps. Only rank 0 has
    the folder and reads and writes checkpoints; it sends the one that it resumes from to the others, which may be on
    other machines.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        run_dir: Path,
        *,
        config: Mapping[str, str],
        sinks: Mapping[str, ExampleSink],
        checkpoint_interval: float = 30.0,
        process_group: ProcessGroup | None = None,
    ) -> None:
        """Resume from the newest checkpoint in `run_dir`, if there is one.

        Args:
            config: every setting that decides the result, by name; a run can be resumed only with the same.
            sinks: by name, which is the name of their files in a checkpoint.
            checkpoint_interval: seconds.
            process_group: the processes that share this run.

        Raises:
            UsageError: the checkpoint has another configuration or topic, or another process has.
            PrectrError: the broker does not answer, or the topic does not exist.
        """
        self._process_group = SingleProcess() if process_group is None else process_group
        self._is_leader = self._process_group.rank == 0
        self._lock = FolderLock(run_dir) if self._is_leader else None
        self._checkpoints = run_dir / "checkpoints"
        self._run_dir = run_dir
        self._config = dict(config)
        self._topic = topics.examples
        self._identity = {"topic": self._topic, **config}
        self.top_queries = TopQueries()
        self._sinks = {**sinks, "top_queries": self.top_queries}
        self._checkpoint_interval = checkpoint_interval
        self.digest = RunDigest()
        self.finished = False
        self.waiting_reason = ""
        """Why no page has arrived for some time, in words; empty otherwise."""
        self.wait_seconds = 0.0
        """Seconds spent waiting for examples, since the start of this process."""
        self._previous_seconds = 0.0
        self._started_at = time.monotonic()
        self._connection = connection
        self._events_topic = topics.events
        try:
            with connection.translate_errors():
                self.reader = ExampleReader(connection, topics, self._restore())
        except BaseException:
            self._unlock()
            raise

    @property
    def seconds(self) -> float:
        """Seconds spent on this run, in all processes that worked on it one after the other."""
        return self._previous_seconds + time.monotonic() - self._started_at

    @property
    def outcomes(self) -> Outcomes:
        """Outcomes of all records over all `join` tasks, as last received."""
        return sum(self.reader.outcomes.values(), Outcomes())

    def run(
        self,
        *,
        until_end: bool = False,
        flush: bool = False,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[["LiveSinkRunner"], None] = lambda runner: None,
        on_checkpoint: Callable[["LiveSinkRunner"], object] = lambda runner: None,
    ) -> None:
        """Feed the sinks until `stop` returns true or, with `until_end`, until the present log has been processed.

        Args:
            until_end: end once every example of the events in the log now has been consumed. The stages must be
                requested to end there, or later, too.
            flush: with `until_end`: flush the sinks; nothing can follow then.
            progress: called after each step.
            on_checkpoint: called after each checkpoint but the last.

        Raises:
            PrectrError: the broker rejects a request, or has lost the next record.
        """
        ends = fetch_end_offsets(self._connection, self._events_topic) if until_end else None
        with self._connection.translate_errors():
            self._run_steps(ends, flush, stop, progress, on_checkpoint)
        self._write_checkpoint()

    def _run_steps(
        self,
        ends: list[int] | None,
        flush: bool,
        stop: Callable[[], bool],
        progress: Callable[["LiveSinkRunner"], None],
        on_checkpoint: Callable[["LiveSinkRunner"], object],
    ) -> None:
        synchronizer = StepSynchronizer(
            self._process_group,
            self.reader.poll,
            stop=stop,
            ended=lambda: ends is not None and self.reader.ended(ends),
        )
        last_checkpoint = last_page = time.monotonic()
        has_uncheckpointed = False
        while not self.finished:
            wait_started = time.monotonic()
            step = synchronizer.next_step()
            self.wait_seconds += time.monotonic() - wait_started
            if step.examples:
                last_page, self.waiting_reason = time.monotonic(), ""
            elif self._is_leader and time.monotonic() - last_page >= _IDLE_REPORT_INTERVAL:
                last_page, self.waiting_reason = time.monotonic(), self.reader.waiting_reason()
            self.digest.add(step.examples)
            for sink in self._sinks.values():
                sink.consume(step.examples, step.watermark)
            progress(self)
            if step.ended:
                if flush:
                    for sink in self._sinks.values():
                        sink.flush()
                    self.finished = True
                break
            if step.stop:
                break
            has_uncheckpointed = has_uncheckpointed or bool(step.examples)
            if has_uncheckpointed and time.monotonic() - last_checkpoint >= self._checkpoint_interval:
                self._write_checkpoint()
                has_uncheckpointed = False
                if self._is_leader:
                    on_checkpoint(self)
                last_checkpoint = time.monotonic()

    def close(self) -> None:
        """Close the reader and release the folder."""
        self.reader.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _write_checkpoint(self) -> None:
        # The state of rank 0 is that of every rank.
        if not self._is_leader:
            return
        writer = CheckpointWriter(self._checkpoints)
        writer.write(_READER_STATE_FILE, msgspec.msgpack.encode(self.reader.state()))
        writer.save_sinks(self._sinks)
        writer.commit(
            LiveCheckpoint(
                config=self._config,
                topic=self._topic,
                digest=self.digest.state(),
                seconds=self.seconds,
                ranks=self._process_group.world_size,
                finished=self.finished,
            )
        )
        _log.debug("%s: checkpoint at %d pages", self._run_dir, self.digest.pages, extra=_LOG_EXTRA)

    def _restore(self) -> ReaderState | None:
        newest = self._agreed_checkpoint()
        if newest is None:
            _log.info("%s: there is no checkpoint: starts from the first example", self._run_dir, extra=_LOG_EXTRA)
            return None
        if self._is_leader:
            # Before it is sent: if it is damaged, the one error is about the folder that there is.
            reader = self._restore_from(newest)
            if self._process_group.world_size > 1:
                send_folder(self._process_group, newest)
            return reader
        with TemporaryDirectory(prefix="prectr-checkpoint-") as folder:
            copy = Path(folder) / newest.name
            receive_folder(self._process_group, copy)
            return self._restore_from(copy)

    def _restore_from(self, folder: Path) -> ReaderState:
        """Restore from a checkpoint, of this run or a copy of it."""
        manifest = read_manifest(folder, LiveCheckpoint)
        saved_identity = {"topic": manifest.topic, **manifest.config}
        check_config(self._run_dir, self._identity, saved_identity, Remedy.OTHER_RUN_DIR)
        if manifest.ranks != self._process_group.world_size:
            _log.warning(
                "%s: was trained by %d processes so far and continues with %d: sums will round differently than in a "
                "run with a constant number",
                self._run_dir,
                manifest.ranks,
                self._process_group.world_size,
            )
        reader = _read_reader_state(folder)
        load_sinks(folder, self._sinks)
        self.digest = RunDigest(manifest.digest)
        self.finished = manifest.finished
        self._previous_seconds = manifest.seconds
        _log.info(
            "%s: resumes from checkpoint %s, %d pages",
            self._run_dir,
            folder.name,
            manifest.digest.pages,
            extra=_LOG_EXTRA,
        )
        return reader

    def _agreed_checkpoint(self) -> Path | None:
        """Return the checkpoint from which all ranks resume: the newest of rank 0, in rank 0's folder."""
        found = list_checkpoints(self._checkpoints)
        join = _Join(found[0].name if found else "", self._identity)
        first, *others = (_decode(message) for message in self._process_group.all_gather_bytes(_encode(join)))
        for rank, other in enumerate(others, 1):
            differences = config_diff(other.config, first.config, "on rank 0 it is")
            if differences:
                raise UsageError(
                    f"rank {rank} was started with other settings than rank 0: {differences}: start all with the same"
                )
            if other.checkpoint > first.checkpoint:
                raise CheckpointError(
                    f"the run folder of rank {rank} has checkpoint {other.checkpoint}, newer than that of rank 0 "
                    f"({first.checkpoint or 'it has none'}): rank 0 was on another machine before; give it rank 0 "
                    f"again, or move {self._checkpoints} to that of rank 0"
                )
        return self._checkpoints / first.checkpoint if first.checkpoint else None


def _read_reader_state(checkpoint: Path) -> ReaderState:
    """The offsets and buffers at a checkpoint; CheckpointError: they are missing or corrupt."""
    path = checkpoint / _READER_STATE_FILE
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=ReaderState)
    except (FileNotFoundError, msgspec.DecodeError, RecursionError) as error:
        raise damaged(checkpoint, f"{path} cannot be read ({error})") from error


def write_examples(
    connection: Connection,
    topics: Topics,
    out: Path,
    *,
    until_end: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda pages: None,
) -> RunDigest:
    """Write the committed examples of `training-examples` in total order to `out`; returns their digest.

    Args:
        until_end: stop at the topic's present end; a partition that has been read up to it does not hold the watermark.
        progress: called with the number of pages written.

    Raises:
        PrectrError: the broker does not answer, the topic does not exist, a frame cannot be decoded, or `out` cannot
            be written.
    """
    digest = RunDigest()
    with ExitStack() as stack:
        stack.enter_context(connection.translate_errors())
        ends = fetch_end_offsets(connection, topics.examples) if until_end else None
        reader = ExampleReader(connection, topics)
        stack.callback(reader.close)
        spool = out.with_name(f".{out.name}.jsonl.zst")
        stack.callback(spool.unlink, missing_ok=True)
        file = ExampleFile(out, spool)
        stack.callback(file.close)
        if ends is not None:
            reader.stop_at(ends)
        while not stop():
            batch = reader.poll()
            done = ends is not None and not batch.examples and reader.at_end
            if done:
                batch = reader.release_all()
            digest.add(batch.examples)
            for example in batch.examples:
                file.write(example, NO_SCORES)
            progress(digest.pages)
            if done:
                break
        file.finish()
    return digest
