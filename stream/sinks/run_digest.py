"""Digests and counts of all examples in the total order, for comparing runs."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from prectr.stream.records import Example
from prectr.stream.sinks.hash_chain import HashChain

Count = Annotated[int, msgspec.Meta(ge=0)]
Hexadecimal = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})*$")]

_encode = msgspec.msgpack.Encoder().encode


class RunDigestState(msgspec.Struct):
    """The stored form: both digests in hexadecimal, and the counts."""

    examples: Hexadecimal = bytes(32).hex()
    aggregates: Hexadecimal = bytes(32).hex()
    pages: Count = 0
    impressions: Count = 0
    clicks: Count = 0


class RunDigest:
    """Hash chains over the examples and over the aggregates as read, and counts of pages, impressions and clicks."""

    def __init__(self, state: RunDigestState | None = None) -> None:
        """Continue from `state`."""
        state = state or RunDigestState()
        self.examples = HashChain(bytes.fromhex(state.examples), state.pages)
        self.aggregates = HashChain(bytes.fromhex(state.aggregates), state.pages)
        self.impressions = state.impressions
        self.clicks = state.clicks

    @property
    def pages(self) -> int:
        """Number of examples so far."""
        return self.examples.length

    def add(self, examples: Sequence[Example]) -> None:
        """Add the next examples."""
        self.examples.add(map(_encode, examples))
        self.aggregates.add(
            [
                _encode((example.user_activity, example.user_stats, example.query_stats, example.query_decayed))
                for example in examples
            ]
        )
        labels = b"".join([example.labels for example in examples])
        self.impressions += len(labels)
        self.clicks += labels.count(1)

    def state(self) -> RunDigestState:
        """Return the state to store."""
        return RunDigestState(self.examples.hex(), self.aggregates.hex(), self.pages, self.impressions, self.clicks)
