"""Examples wait for the scores of every model, however batches, steps and restarts fall."""

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.stream.records import Example
from prectr.stream.sinks.example_line import Scores
from prectr.stream.sinks.pending_scores import PendingScores
from tests.kit.models.examples import random_examples

PAGES = 12
PAGE = random_examples(1)[0]
EXAMPLES = [msgspec.structs.replace(PAGE, request_id=f"r{number}") for number in range(PAGES)]


def score(model: str, number: int) -> list[float]:
    return [number + (0.5 if model == "b" else 0.25), float(number)]


@given(
    batches=st.fixed_dictionaries({"a": st.integers(1, 5), "b": st.integers(1, 5)}),
    steps=st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1),
)
@settings(max_examples=60, deadline=None)
def test_every_example_comes_once_in_order_with_the_scores_of_all(
    batches: dict[str, int], steps: list[tuple[int, bool]]
) -> None:
    """In each step examples come, each model scores the batches that are full, and perhaps the run restarts."""
    pending = PendingScores(list(batches))
    found: list[tuple[Example, Scores]] = []
    read = 0
    done = dict.fromkeys(batches, 0)
    for count, restart in steps:
        new = EXAMPLES[read : read + count]
        read += len(new)
        for model, size in batches.items():
            while done[model] + size <= read:
                pending.add(model, [score(model, number) for number in range(done[model], done[model] + size)])
                done[model] += size
        pending.consume(new, 0)
        found += pending.scored()
        if restart:
            with TemporaryDirectory() as folder:
                pending.save(Path(folder))
                pending = PendingScores(list(batches))
                pending.load(Path(folder))
    complete = min(done.values())
    assert [(example.request_id, scores) for example, scores in found] == [
        (f"r{number}", {model: score(model, number) for model in batches}) for number in range(complete)
    ]
    assert [(example.request_id, scores) for example, scores in pending.rest()] == [
        (f"r{number}", {model: score(model, number) for model in batches if number < done[model]})
        for number in range(complete, read)
    ]


def test_without_models_no_example_waits() -> None:
    pending = PendingScores()
    pending.consume(EXAMPLES[:3], 0)
    assert list(pending.scored()) == [(example, {}) for example in EXAMPLES[:3]]
