"""The live runner of the sinks: examples from Kafka, checkpoints with the offsets in them."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from prectr.state.errors import UsageError
from prectr.state.lock import FolderLock
from prectr.stream.coordination.process_group import Alone, Peers
from prectr.stream.coordination.synchronized_steps import Lockstep
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import ends_of
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.example_reader import ExampleReader, ReaderState
from prectr.stream.replay.run_checkpoint import (
    FORMAT,
    CutWriter,
    cuts,
    differing,
    load_sinks,
    read_manifest,
    refuse_other_config,
)
from prectr.stream.sinks.example_file import ExampleFile
from prectr.stream.sinks.example_sink import ExampleSink
from prectr.stream.sinks.run_digest import Tally, TallyState
from prectr.stream.sinks.top_queries import BusiestQueries

_READER: Final = "reader.msgpack"
_QUIET: Final = 10.0
"""Seconds without a page after which, and between which, the broker is asked what is wanting."""
_STAGE: Final = {"stage": "train"}
"""Where this is, in the lines of a log."""
_log = logging.getLogger(__name__)


class LiveCut(msgspec.Struct, kw_only=True):
    """`cut.json` of a live run; the reader's state lies beside it.

    ranks: processes that shared the run. finished: the last batch has been trained.
    """

    format: int = FORMAT
    config: dict[str, str]
    topic: str
    tally: TallyState
    seconds: float
    ranks: int = 1
    finished: bool = False


class _Joins(msgspec.Struct, array_like=True):
    """What a process tells the others at its start: the newest checkpoint it finds, and its settings."""

    cut: str
    config: dict[str, str]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Joins).decode


class LiveTraining:
    """Feeds the sinks from `training-examples`; what they hold and the offsets are one checkpoint.

    config: every setting that decides the result, by name; a run goes on only with the same.

    Several processes can train together: each reads everything itself, and they act on it step by step at the same
    places. The first of them alone has the folder and writes checkpoints; all take up the one that it names.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        run_dir: Path,
        *,
        config: Mapping[str, str],
        sinks: Mapping[str, ExampleSink],
        cut_every: float = 30.0,
        peers: Peers | None = None,
    ) -> None:
        """Take up the newest checkpoint in `run_dir`, if there is one.

        peers: the processes that share this run, whose sinks work together.

        Raises:
            UsageError: it was made with another configuration or from another topic, or a peer has another.
            PrectrError: no broker, or no topic.
        """
        self._peers = Alone() if peers is None else peers
        self._leads = self._peers.rank == 0
        self._lock = FolderLock(run_dir) if self._leads else None
        self._checkpoints = run_dir / "checkpoints"
        self._run_dir = run_dir
        self._config = dict(config)
        self._topic = topics.examples
        self._identity = {"topic": self._topic, **config}
        self.busiest = BusiestQueries()
        self._sinks = {**sinks, "busiest": self.busiest}
        self._cut_every = cut_every
        self.tally = Tally()
        self.finished = False
        self.waiting = ""
        """What is waited for, in words, where no page has come for a while."""
        self.waited = 0.0
        """Seconds spent waiting for examples, since the start of this process."""
        self._seconds_before = 0.0
        self._begun = time.monotonic()
        self._connection = connection
        self._events = topics.events
        try:
            with connection.errors():
                self.reader = ExampleReader(connection, topics, self._take_up())
        except BaseException:
            self._unlock()
            raise

    @property
    def seconds(self) -> float:
        """Time spent, over all goes at this run."""
        return self._seconds_before + time.monotonic() - self._begun

    @property
    def outcomes(self) -> Outcomes:
        """How every record ended, over all `sessions` tasks, as last heard."""
        return sum(self.reader.outcomes.values(), Outcomes())

    def run(
        self,
        *,
        until_end: bool = False,
        flush: bool = False,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[["LiveTraining"], None] = lambda training: None,
        on_cut: Callable[["LiveTraining"], object] = lambda training: None,
    ) -> None:
        """Train until `stop` says so or, with `until_end`, until all that comes of the events there now is learned.

        For that, the stages must have been told to end there or later. flush: with `until_end`, train the last
        batch; nothing can follow then. on_cut: told of each checkpoint that is written on the way.

        Raises:
            PrectrError: the broker refuses, or has lost what comes next.
        """
        ends = ends_of(self._connection, self._events) if until_end else None
        with self._connection.errors():
            self._train(ends, flush, stop, progress, on_cut)
        self._cut()

    def _train(
        self,
        ends: list[int] | None,
        flush: bool,
        stop: Callable[[], bool],
        progress: Callable[["LiveTraining"], None],
        on_cut: Callable[["LiveTraining"], object],
    ) -> None:
        lockstep = Lockstep(
            self._peers,
            self.reader.poll,
            stop=stop,
            ended=lambda: ends is not None and self.reader.ended(ends),
        )
        last_cut = last_page = time.monotonic()
        uncut = False
        while not self.finished:
            asked = time.monotonic()
            turn = lockstep.turn()
            self.waited += time.monotonic() - asked
            if turn.examples:
                last_page, self.waiting = time.monotonic(), ""
            elif self._leads and time.monotonic() - last_page >= _QUIET:
                last_page, self.waiting = time.monotonic(), self.reader.waiting_for()
            self.tally.add(turn.examples)
            for sink in self._sinks.values():
                sink.consume(turn.examples, turn.line)
            progress(self)
            if turn.ended:
                if flush:
                    for sink in self._sinks.values():
                        sink.flush()
                    self.finished = True
                break
            if turn.stop:
                break
            uncut = uncut or bool(turn.examples)
            if uncut and time.monotonic() - last_cut >= self._cut_every:
                self._cut()
                uncut = False
                if self._leads:
                    on_cut(self)
                last_cut = time.monotonic()

    def close(self) -> None:
        """Leave the broker and the folder."""
        self.reader.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _cut(self) -> None:
        # The first of several holds all that the others hold, so its state is that of all.
        if not self._leads:
            return
        writer = CutWriter(self._checkpoints)
        (writer.aside / _READER).write_bytes(msgspec.msgpack.encode(self.reader.state()))
        writer.save_sinks(self._sinks)
        writer.commit(
            LiveCut(
                config=self._config,
                topic=self._topic,
                tally=self.tally.state(),
                seconds=self.seconds,
                ranks=self._peers.size,
                finished=self.finished,
            )
        )
        _log.debug("%s: checkpoint at %d pages", self._run_dir, self.tally.pages, extra=_STAGE)

    def _take_up(self) -> ReaderState | None:
        folder = self._agreed_cut()
        if folder is None:
            return None
        cut = read_manifest(folder, LiveCut)
        then = {"topic": cut.topic, **cut.config}
        refuse_other_config(self._run_dir, self._identity, then, "or name another --run-dir")
        if cut.ranks != self._peers.size:
            _log.warning(
                "%s: was trained by %d processes so far and goes on with %d: sums will round otherwise than in a run "
                "that keeps their number",
                self._run_dir,
                cut.ranks,
                self._peers.size,
            )
        load_sinks(folder, self._sinks)
        self.tally = Tally(cut.tally)
        self.finished = cut.finished
        self._seconds_before = cut.seconds
        _log.info("%s: goes on from checkpoint %s, %d pages", self._run_dir, folder.name, cut.tally.pages, extra=_STAGE)
        return msgspec.msgpack.decode((folder / _READER).read_bytes(), type=ReaderState)

    def _agreed_cut(self) -> Path | None:
        """The checkpoint that all take up: the newest that the first of them finds."""
        found = cuts(self._checkpoints) if self._leads else []
        joins = _Joins(found[0].name if found else "", self._identity)
        first, *others = (_decode(said) for said in self._peers.gather(_encode(joins)))
        for rank, other in enumerate(others, 1):
            differences = differing(other.config, first.config, "of rank 0")
            if differences:
                raise UsageError(
                    f"rank {rank} was started with other settings than rank 0: {differences}. Give all the same"
                )
        return self._checkpoints / first.cut if first.cut else None


def write_examples(
    connection: Connection,
    topics: Topics,
    out: Path,
    *,
    until_end: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda pages: None,
) -> Tally:
    """Write what is committed in `training-examples`, in the one order, to `out`; returns its tally.

    until_end: stop where the topic ended when this was called; a partition that is read to its end holds nobody up.

    Raises:
        PrectrError: no broker or topic, a frame that cannot be read, or `out` cannot be written.
    """
    tally = Tally()
    with ExitStack() as stack:
        stack.enter_context(connection.errors())
        ends = ends_of(connection, topics.examples) if until_end else None
        reader = ExampleReader(connection, topics)
        stack.callback(reader.close)
        file = ExampleFile(out)
        stack.callback(file.close)
        if ends is not None:
            reader.read_to(ends)
        while not stop():
            step = reader.poll()
            done = ends is not None and not step.examples and reader.at_end
            if done:
                step = reader.release_all()
            tally.add(step.examples)
            for example in step.examples:
                file.write(example)
            progress(tally.pages)
            if done:
                break
    return tally
