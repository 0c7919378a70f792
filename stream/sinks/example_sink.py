"""The interface of consumers of training examples: trainers, reports, benchmarks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from prectr.stream.records import Example


class ExampleSink(Protocol):
    """Consumes every example once, in the total order.

    The effect of `consume` depends on the examples alone, not on how they are grouped into calls or on time.
    `save` and `load` preserve the sink's whole state across a restart, bit for bit.
    """

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Consume the next examples; no later one has closes_at ≤ `watermark` (ms)."""

    def flush(self) -> None:
        """End the log for good: finish what is incomplete (train the last batch)."""

    def save(self, folder: Path) -> None:
        """Write the whole state to `folder`, which exists and is empty; the caller makes this atomic."""

    def load(self, folder: Path) -> None:
        """Restore the state that `save` wrote to `folder`."""
