"""What a runner hands training examples to: the trainer, an `--examples` file, a benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from prectr.stream.records import Example


class ExampleSink(Protocol):
    """Takes every example once, in the one order.

    What `consume` does may depend on the examples alone, never on how they are cut into calls or on the
    time between calls. `save` and `load` carry all of the sink's state across a restart, bit for bit.
    """

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Take the next examples; none with closes_at ≤ `line` (ms) will follow these."""

    def flush(self) -> None:
        """The log has ended for good: finish what was begun (train the last batch)."""

    def save(self, folder: Path) -> None:
        """Write all state into `folder`, which exists and is empty; the caller makes it atomic."""

    def load(self, folder: Path) -> None:
        """Take up the state that `save` wrote into `folder`."""
