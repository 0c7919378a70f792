"""Runs a replay in this process, without a model, and collects its output."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.readers import Order
from prectr.stream.records import Example, encode_record
from prectr.stream.replay.runner import Replay, RunnerOptions
from testkit.command import stated_fields


class CollectingSink:
    """A sink that keeps the bytes of every example and the last watermark."""

    def __init__(self) -> None:
        self.examples: list[bytes] = []
        self.watermark = MIN_WATERMARK
        self.flushed = False

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        assert not self.flushed
        for example in examples:
            assert example.closes_at > self.watermark, "an example behind the watermark"
            self.examples.append(encode_record(example))
        assert watermark >= self.watermark
        assert all(example.closes_at <= watermark for example in examples)
        self.watermark = watermark

    def flush(self) -> None:
        self.flushed = True

    def save(self, folder: Path) -> None:
        state = (self.examples, self.watermark, self.flushed)
        (folder / "collected").write_bytes(msgspec.msgpack.encode(state))

    def load(self, folder: Path) -> None:
        stored = (folder / "collected").read_bytes()
        self.examples, self.watermark, self.flushed = msgspec.msgpack.decode(stored, type=tuple[list[bytes], int, bool])


class ReplayResult(NamedTuple):
    """The output of a run when it was closed."""

    examples: str
    aggregates: str
    pages: int
    clicks: int
    outcomes: Outcomes
    dead_letters: dict[str, int]
    emitted: list[bytes]
    top_queries: list[Any]


def _named_config(pipeline: PipelineConfig) -> dict[str, str]:
    return {
        "partitions": str(pipeline.partitions),
        "half_lives": msgspec.json.encode(pipeline.half_lives).decode(),
    }


def open_replay(
    log: Sequence[Path],
    run_dir: Path,
    *,
    config: PipelineConfig | None = None,
    named_config: dict[str, str] | None = None,
    examples: Path | None = None,
    checkpoint_interval: float = 1e9,
    restart: bool = False,
    order: Order = "given",
) -> tuple[Replay, CollectingSink]:
    """Open a run; `named_config` is its configuration by name, by default derived from `config`.

    Files are read one after the other by default: most logs of the tests are out of order on purpose.
    """
    pipeline = config or PipelineConfig(partitions=2)
    collector = CollectingSink()
    replay = Replay(
        [str(path) for path in log],
        run_dir,
        pipeline,
        config=_named_config(pipeline) if named_config is None else named_config,
        sinks={"collector": collector},
        label=LexicalLabeller(),
        options=RunnerOptions(order=order, examples=examples, checkpoint_interval=checkpoint_interval, restart=restart),
    )
    return replay, collector


def replay_to_end(
    log: Sequence[Path],
    run_dir: Path,
    *,
    flush: bool = True,
    progress: Callable[[Replay], None] = lambda replay: None,
    **settings: Any,
) -> ReplayResult:
    """Open a run, read to the end of the log and close it, even after an error."""
    replay, collector = open_replay(log, run_dir, **settings)
    try:
        replay.run(flush=flush, progress=progress)
        return ReplayResult(
            replay.digest.examples.hex(),
            replay.digest.aggregates.hex(),
            replay.pages,
            replay.digest.clicks,
            replay.outcomes,
            dict(replay.dead_letters),
            collector.examples,
            replay.top_queries.top(1000),
        )
    finally:
        replay.close()


def read_examples(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [stated_fields(json.loads(line)) for line in data.splitlines()]
