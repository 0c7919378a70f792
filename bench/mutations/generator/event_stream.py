"""The events as they are sent: mutated by the grammar, by hypothesis or by both, and some again or late."""

import heapq
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.mutations.generator.base_events import Event, base_events
from bench.mutations.generator.grammar import encode, mutate, mutate_fields
from bench.mutations.generator.hypothesis_edits import Edit, apply_edits

_UNTOUCHED: Final = 0.2
"""Of the base events: those that are sent as they are, and not counted as mutated."""
_AGAIN: Final = 0.04
_LATE: Final = 0.04
_LONGEST_DELAY: Final = 3_000
"""Events that overtake one that is late."""
GRAMMAR, HYPOTHESIS, BOTH, AGAIN, LATE = "grammar", "hypothesis", "both", "sent again", "sent late"
_SOURCES: Final = (GRAMMAR,) * 9 + (HYPOTHESIS,) * 9 + (BOTH,) * 2


@dataclass
class Composition:
    """Of how many events what was mutated. untouched: valid events between the mutated ones."""

    sources: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    untouched: int = 0

    @property
    def mutated(self) -> int:
        """Number of mutated events."""
        return self.sources.total()


class EventStream:
    """An endless stream of lines, the same for a seed and a pool; `composition` counts those that were taken."""

    def __init__(self, seed: int, pool: Sequence[Edit]) -> None:
        self.composition = Composition()
        self._rng = random.Random(seed)
        self._pool = pool
        self._events = base_events(self._rng)
        self._late: list[tuple[int, int, bytes]] = []
        self._count = 0

    def untouched(self, count: int) -> Iterator[bytes]:
        """Yield base events as they are."""
        for _ in range(count):
            self.composition.untouched += 1
            yield encode(self._rng, next(self._events))

    def mutated(self, count: int) -> Iterator[bytes]:
        """Yield lines until `count` mutated ones are among them."""
        end = self.composition.mutated + count
        while self.composition.mutated < end:
            self._count += 1
            if self._late and self._late[0][0] <= self._count:
                yield heapq.heappop(self._late)[2]
                continue
            event = next(self._events)
            if self._rng.random() < _UNTOUCHED:
                self.composition.untouched += 1
                line = encode(self._rng, event)
            else:
                line = self._mutate(event)
            chance = self._rng.random()
            if chance < _AGAIN:
                self._hold_back(line, AGAIN)
            elif chance < _AGAIN + _LATE:
                self._hold_back(line, LATE)
                continue
            yield line

    def _hold_back(self, line: bytes, source: str) -> None:
        """Send a line later: for the first time, or again, which counts as one more mutated event."""
        if source == AGAIN:
            self.composition.sources[AGAIN] += 1
        else:
            self.composition.kinds[LATE] += 1
        delay = self._rng.choice((1, 10, self._rng.randrange(1, _LONGEST_DELAY)))
        heapq.heappush(self._late, (self._count + delay, len(self._late), line))

    def _mutate(self, event: Event) -> bytes:
        source = self._rng.choice(_SOURCES)
        self.composition.sources[source] += 1
        if source == GRAMMAR:
            line, kinds = mutate(self._rng, event)
            self.composition.kinds.update(kinds)
            return line
        if source == BOTH:
            event, kinds = mutate_fields(self._rng, event)
            self.composition.kinds.update(kinds)
        edits = self._rng.sample(self._pool, self._rng.choice((1, 1, 2)))
        self.composition.kinds.update(type(edit).__name__ for edit in edits)
        return apply_edits(self._rng, event, edits)
