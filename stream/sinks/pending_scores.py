"""Pairs examples with the scores that the trainers give them, which come later, a batch at a time."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from prectr.stream.records import Example
from prectr.stream.sinks.example_line import Scores

_FILE: Final = "pending_scores.msgpack"


class _State(msgspec.Struct):
    pending: list[Example]
    scores: dict[str, list[list[float]]]


class PendingScores:
    """A sink that holds examples until every model has scored them: at most the open batches of the trainers.

    Trainers score every page once, in the total order, so the next scores are always those of the first page that has
    none yet.
    """

    def __init__(self, models: Sequence[str] = ()) -> None:
        self._pending: deque[Example] = deque()
        self._scores: dict[str, deque[list[float]]] = {model: deque() for model in models}

    def add(self, model: str, pages: Sequence[list[float]]) -> None:
        """Take the scores of a model's next pages: P(click) of the items of each."""
        self._scores[model].extend(pages)

    def scored(self) -> Iterator[tuple[Example, Scores]]:
        """Remove and return the examples that all models have scored, in the total order."""
        while self._pending and all(self._scores.values()):
            yield self._pending.popleft(), {model: scores.popleft() for model, scores in self._scores.items()}

    def rest(self) -> Iterator[tuple[Example, Scores]]:
        """Remove and return the examples that not all models have scored, with the scores that there are."""
        while self._pending:
            yield (
                self._pending.popleft(),
                {model: scores.popleft() for model, scores in self._scores.items() if scores},
            )

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Hold the next examples."""
        self._pending.extend(examples)

    def flush(self) -> None:
        """Do nothing: the trainers score their last batch."""

    def save(self, folder: Path) -> None:
        """Write the examples and scores that are held."""
        state = _State(list(self._pending), {model: list(scores) for model, scores in self._scores.items()})
        (folder / _FILE).write_bytes(msgspec.msgpack.encode(state))

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""
        state = msgspec.msgpack.decode((folder / _FILE).read_bytes(), type=_State)
        self._pending = deque(state.pending)
        self._scores = {model: deque(scores) for model, scores in state.scores.items()}
