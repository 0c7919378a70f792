"""`python -m tests.stream.native.fuzz --seconds N`: damaged lines, records and state for the native core.

Run by `make sanitize`, where any wrong access ends the process. The core refuses a state by a PrectrError and
nothing else; a line that it decodes and a record that it takes must come out as in Python.
"""

import argparse
import time
from random import Random

from prectr.state.errors import PrectrError
from prectr.stream.aggregate.operator import Aggregate
from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.state import META_KEY
from prectr.stream.native.aggregate import NativeAggregate
from prectr.stream.native.event_batch import NativeEventBatch
from prectr.stream.native.join import NativeJoin
from prectr.stream.records import encode_record
from tests.kit.stages.events import T
from tests.kit.stages.store import DictStore
from tests.stream.native.test_aggregate import is_refused, outcome, page
from tests.stream.native.test_decode import LINES, PIECES, assert_equal
from tests.stream.native.test_join import odd_world


def mutated(rng: Random, value: bytes) -> bytes:
    """Change some bytes, cut, repeat or insert a piece."""
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        start = rng.randrange(len(value) + 1)
        size = rng.choice((0, 1, 1, 4, 40))
        piece = rng.choice((rng.randbytes(size), rng.choice(PIECES), value[start : start + size] * 2, b""))
        value = value[:start] + piece + value[start + size :]
    return value


def fuzz_lines(rng: Random) -> None:
    assert_equal([mutated(rng, rng.choice(LINES)) for _ in range(rng.randint(1, 8))])


def fuzz_state(rng: Random) -> bool:
    """Go on with a state of which some entries are damaged; return whether the core saw it."""
    lines = odd_world(rng.getrandbits(30), 200)
    store, half = DictStore(), rng.randrange(len(lines))
    task = NativeJoin(PipelineConfig(), store, LexicalLabeller())
    task.process(NativeEventBatch(lines[:half], range(half)), half)
    store.write(task.drain_changes())
    for key in rng.sample(sorted(store.entries), min(len(store.entries), rng.choice((1, 2, 5)))):
        # The task's own entry is read by Python.
        if key != META_KEY:
            store.entries[key] = mutated(rng, store.entries[key])
    try:
        task = NativeJoin(PipelineConfig(), store, LexicalLabeller())
        task.process(NativeEventBatch(lines[half:], range(half, len(lines))), len(lines))
        store.write(task.drain_changes())
        task.flush()
    except PrectrError:
        return True
    return False


def fuzz_record(rng: Random) -> None:
    """A record between the stages: refused in the words of Python, or taken as it takes it."""
    record = mutated(rng, encode_record(page(rng, T)))
    expected, found = (outcome(kind, record) for kind in (Aggregate, NativeAggregate))
    assert is_refused(found) == is_refused(expected), record
    assert found == expected or not is_refused(expected), record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, rounds, refused = Random(arguments.seed), 0, 0
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        for _ in range(20):
            fuzz_lines(rng)
            fuzz_record(rng)
        refused += fuzz_state(rng)
        rounds += 1
    print(
        f"{20 * rounds} batches of damaged lines, as many damaged records; "
        f"{rounds} damaged states, of which {refused} were refused"
    )


if __name__ == "__main__":
    main()
