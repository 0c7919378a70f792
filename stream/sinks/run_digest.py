"""Digests and counts of everything that was put out, in the one order: what two runs are compared by."""

from collections.abc import Sequence

import msgspec

from prectr.stream.records import Example
from prectr.stream.sinks.hash_chain import HashChain

_encode = msgspec.msgpack.Encoder().encode


class RunDigestState(msgspec.Struct):
    """A tally as it is stored: both digests in hexadecimal, and the counts."""

    examples: str = bytes(32).hex()
    aggregates: str = bytes(32).hex()
    pages: int = 0
    impressions: int = 0
    clicks: int = 0


class RunDigest:
    """Chains over the examples and over the aggregates as read; pages, impressions and clicks so far."""

    def __init__(self, state: RunDigestState | None = None) -> None:
        """Go on from `state`."""
        state = state or RunDigestState()
        self.examples = HashChain(bytes.fromhex(state.examples), state.pages)
        self.aggregates = HashChain(bytes.fromhex(state.aggregates), state.pages)
        self.impressions = state.impressions
        self.clicks = state.clicks

    @property
    def pages(self) -> int:
        """Examples so far."""
        return self.examples.length

    def add(self, examples: Sequence[Example]) -> None:
        """Count the next examples."""
        add_example, add_aggregates = self.examples.add, self.aggregates.add
        for example in examples:
            add_example(_encode(example))
            add_aggregates(
                _encode((example.user_activity, example.user_stats, example.query_stats, example.query_decayed))
            )
            self.impressions += len(example.labels)
            self.clicks += example.labels.count(1)

    def state(self) -> RunDigestState:
        """Everything, to be stored."""
        return RunDigestState(self.examples.hex(), self.aggregates.hex(), self.pages, self.impressions, self.clicks)
