"""Runs a replay in this process, without a model, and says what it put out."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.event_clock import BEFORE_TIME
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.records import Example, encode_record
from prectr.stream.replay.runner import Replay


class Collector:
    """A sink that keeps the bytes of every example and the lines it was told."""

    def __init__(self) -> None:
        self.examples: list[bytes] = []
        self.line = BEFORE_TIME
        self.flushed = False

    def consume(self, examples: Sequence[Example], line: int) -> None:
        assert not self.flushed
        for example in examples:
            assert example.closes_at > self.line, "an example behind the line that was told"
            self.examples.append(encode_record(example))
        assert line >= self.line
        assert all(example.closes_at <= line for example in examples)
        self.line = line

    def flush(self) -> None:
        self.flushed = True

    def save(self, folder: Path) -> None:
        state = (self.examples, self.line, self.flushed)
        (folder / "collected").write_bytes(msgspec.msgpack.encode(state))

    def load(self, folder: Path) -> None:
        stored = (folder / "collected").read_bytes()
        self.examples, self.line, self.flushed = msgspec.msgpack.decode(stored, type=tuple[list[bytes], int, bool])


class Ran(NamedTuple):
    """What a run had put out when it was closed."""

    examples: str
    aggregates: str
    pages: int
    clicks: int
    outcomes: Outcomes
    dead_letters: dict[str, int]
    collected: list[bytes]
    busiest: list[Any]


def open_replay(
    log: Sequence[Path],
    run_dir: Path,
    *,
    config: PipelineConfig | None = None,
    named: dict[str, str] | None = None,
    examples: Path | None = None,
    cut_every: float = 1e9,
    restart: bool = False,
) -> tuple[Replay, Collector]:
    """Open a run; `named` is its configuration by name, made of `config` where it is left out."""
    pipeline = config or PipelineConfig(partitions=2)
    collector = Collector()
    replay = Replay(
        [str(path) for path in log],
        run_dir,
        pipeline,
        config={"partitions": str(pipeline.partitions)} if named is None else named,
        sinks={"collector": collector},
        label=LexicalLabeller(),
        examples=examples,
        cut_every=cut_every,
        restart=restart,
    )
    return replay, collector


def ran(
    log: Sequence[Path],
    run_dir: Path,
    *,
    flush: bool = True,
    progress: Callable[[Replay], None] = lambda replay: None,
    **settings: Any,
) -> Ran:
    """Open a run, read to the end of the log and close it, also where an error comes up."""
    replay, collector = open_replay(log, run_dir, **settings)
    try:
        replay.run(flush=flush, progress=progress)
        return Ran(
            replay.tally.examples.hex(),
            replay.tally.aggregates.hex(),
            replay.pages,
            replay.tally.clicks,
            replay.outcomes,
            dict(replay.dead_letters),
            collector.examples,
            replay.busiest.busiest(1000),
        )
    finally:
        replay.close()


def read_examples(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]
