"""Training examples of a simulated log, made by both stages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from prectr.ops.settings.loader import load_settings
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.records import Example
from prectr.stream.replay.runner import Replay, RunnerOptions
from prectr.stream.simulator import WorldSettings, simulate

Catalogue = Literal["synthetic", "chorus"]


class _CollectingSink:
    """An `ExampleSink` that collects all examples."""

    def __init__(self) -> None:
        self.examples: list[Example] = []

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Collect the examples."""
        self.examples.extend(examples)

    def flush(self) -> None:
        """Nothing is buffered."""

    def save(self, folder: Path) -> None:
        """Nothing to save."""

    def load(self, folder: Path) -> None:
        """Nothing to load."""


def collect_examples(folder: Path, pages: int, catalogue: Catalogue) -> list[Example]:
    """Simulate a log in `folder`, and return its examples in total event-time order."""
    log = folder / "log.jsonl"
    simulate(log, WorldSettings(pages=pages, catalogue=catalogue))
    sink = _CollectingSink()
    run = Replay(
        [str(log)],
        folder / "run",
        load_settings(None, {}, environ={}).pipeline,
        config={},
        sinks={"kept": sink},
        label=LexicalLabeller(),
        options=RunnerOptions(checkpoint_interval=float("inf"), restart=True),
    )
    try:
        run.run(flush=True)
    finally:
        run.close()
    return sink.examples
