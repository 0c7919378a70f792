"""Examples of a simulated log, as the stages make them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from prectr.ops.settings.loader import load_settings
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.records import Example
from prectr.stream.replay.runner import Replay, ReplayOptions
from prectr.stream.simulator import WorldSettings, simulate

Catalogue = Literal["synthetic", "chorus"]


class _CollectingSink:
    """An `ExampleSink` that keeps what comes."""

    def __init__(self) -> None:
        self.examples: list[Example] = []

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Keep them."""
        self.examples.extend(examples)

    def flush(self) -> None:
        """Nothing is held back."""

    def save(self, folder: Path) -> None:
        """Nothing outlives the run."""

    def load(self, folder: Path) -> None:
        """Nothing was saved."""


def collect_examples(folder: Path, pages: int, catalogue: Catalogue) -> list[Example]:
    """What the stages make of a log that is simulated in `folder`, in the one order."""
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
        options=ReplayOptions(checkpoint_interval=float("inf"), restart=True),
    )
    try:
        run.run(flush=True)
    finally:
        run.close()
    return sink.examples
