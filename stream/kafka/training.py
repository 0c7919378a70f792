"""The live runner of the sinks: examples from Kafka, checkpoints with the offsets in them."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from state.lock import FolderLock
from stream.busiest import BusiestQueries
from stream.cut import FORMAT, CutWriter, cuts, load_sinks, read_manifest, refuse_other_config
from stream.example_file import ExampleFile
from stream.kafka.client import Connection
from stream.kafka.ends import ends_of
from stream.kafka.examples import ExampleReader, ReaderState
from stream.kafka.topics import Topics
from stream.outcomes import Outcomes
from stream.sink import ExampleSink
from stream.tally import Tally, TallyState

_READER: Final = "reader.msgpack"


class LiveCut(msgspec.Struct, kw_only=True):
    """`cut.json` of a live run; the reader's state lies beside it. finished: the last batch has been trained."""

    format: int = FORMAT
    config: dict[str, str]
    topic: str
    tally: TallyState
    seconds: float
    finished: bool = False


class LiveTraining:
    """Feeds the sinks from `training-examples`; what they hold and the offsets are one checkpoint.

    config: every setting that decides the result, by name; a run goes on only with the same.
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
    ) -> None:
        """Take up the newest checkpoint in `run_dir`, if there is one.

        Raises:
            UsageError: it was made with another configuration or from another topic.
            PrectrError: no broker, or no topic.
        """
        self._lock = FolderLock(run_dir)
        self._checkpoints = run_dir / "checkpoints"
        self._run_dir = run_dir
        self._config = dict(config)
        self._topic = topics.examples
        self.busiest = BusiestQueries()
        self._sinks = {**sinks, "busiest": self.busiest}
        self._cut_every = cut_every
        self.tally = Tally()
        self.finished = False
        self._seconds_before = 0.0
        self._begun = time.monotonic()
        self._connection = connection
        self._events = topics.events
        try:
            with connection.errors():
                self.reader = ExampleReader(connection, topics, self._take_up())
        except BaseException:
            self._lock.release()
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
    ) -> None:
        """Train until `stop` says so or, with `until_end`, until all that comes of the events there now is learned.

        For that, the stages must have been told to end there or later. flush: with `until_end`, train the last
        batch; nothing can follow then.

        Raises:
            PrectrError: the broker refuses, or has lost what comes next.
        """
        ends = ends_of(self._connection, self._events) if until_end else []
        with self._connection.errors():
            self._train(ends if until_end else None, flush, stop, progress)
        self._cut()

    def _train(
        self,
        ends: list[int] | None,
        flush: bool,
        stop: Callable[[], bool],
        progress: Callable[["LiveTraining"], None],
    ) -> None:
        last_cut = time.monotonic()
        while not stop() and not self.finished:
            step = self.reader.poll()
            self.tally.add(step.examples)
            for sink in self._sinks.values():
                sink.consume(step.examples, step.line)
            progress(self)
            if ends is not None and not step.examples and self.reader.ended(ends):
                if flush:
                    for sink in self._sinks.values():
                        sink.flush()
                    self.finished = True
                break
            if step.examples and time.monotonic() - last_cut >= self._cut_every:
                self._cut()
                last_cut = time.monotonic()

    def close(self) -> None:
        """Leave the broker and the folder."""
        self.reader.close()
        self._lock.release()

    def _cut(self) -> None:
        writer = CutWriter(self._checkpoints)
        (writer.aside / _READER).write_bytes(msgspec.msgpack.encode(self.reader.state()))
        writer.save_sinks(self._sinks)
        writer.commit(
            LiveCut(
                config=self._config,
                topic=self._topic,
                tally=self.tally.state(),
                seconds=self.seconds,
                finished=self.finished,
            )
        )

    def _take_up(self) -> ReaderState | None:
        found = cuts(self._checkpoints)
        if not found:
            return None
        cut = read_manifest(found[0], LiveCut)
        ours = {"topic": self._topic, **self._config}
        refuse_other_config(self._run_dir, ours, {"topic": cut.topic, **cut.config}, "or name another --run-dir")
        load_sinks(found[0], self._sinks)
        self.tally = Tally(cut.tally)
        self.finished = cut.finished
        self._seconds_before = cut.seconds
        return msgspec.msgpack.decode((found[0] / _READER).read_bytes(), type=ReaderState)


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
