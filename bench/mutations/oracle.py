"""The outcome of every record by the oracle of the tests, which shares no code with the system."""

import json
import sys
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from bench.mutations.topic_contents import DeadLettersTopic, EventsTopic
from prectr.stream.join.outcomes import Outcomes
from testkit.oracle.contract import MAX_LINE, read_event
from testkit.oracle.oracle import expected_outcomes

MAX_DEPTH: Final = 500
_PROCESSES: Final = 2
_FEW_RECORDS: Final = 20_000
_UNREADABLE: Final = "unreadable"


class Reading(NamedTuple):
    """What a value is. judged: False where JSON leaves it open, since a name occurs twice in an object."""

    kind: str
    event: dict[str, Any] | None
    judged: bool = True


class Expectation(NamedTuple):
    """Of one partition. dead: offsets of the dead letters. unjudged: values whose validity is the system's word."""

    outcomes: Outcomes
    dead: set[int]
    unjudged: int


def read_value(value: bytes) -> Reading:
    """Read a value as the contract defines it, with the JSON parser of the standard library."""
    if len(value) > MAX_LINE:
        return Reading(_UNREADABLE, None)
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            repeated.append("")
            _require_text(pairs)
        return found

    try:
        with _deep_recursion():
            parsed = json.loads(value.decode(), parse_constant=_refuse_constant, object_pairs_hook=collect)
            _require_text(parsed)
    except (ValueError, RecursionError):
        return Reading(_UNREADABLE, None)
    if _depth(parsed) > MAX_DEPTH:
        return Reading(_UNREADABLE, None)
    kind, event = read_event(parsed)
    for item in (event or {}).get("items", ()):
        # The oracle wants a level; which one it is decides no outcome.
        item["relevance"] = item["relevance"] or 1
    return Reading(kind, event, judged=not repeated)


def expect(events: EventsTopic, dead_letters: DeadLettersTopic) -> list[Expectation]:
    """Compute what becomes of every record, by partition; in two processes if there are many."""
    arguments = []
    for partition, log in enumerate(events.logs):
        invalid = {offset for number, offset in dead_letters.invalid if number == partition}
        arguments.append((log, events.offsets(partition), invalid))
    if len(events.hashes) < _FEW_RECORDS:
        return [expect_partition(*each) for each in arguments]
    # Not forked: the clients of Kafka have threads here.
    with ProcessPoolExecutor(_PROCESSES, mp_context=get_context("spawn")) as pool:
        return list(pool.map(expect_partition, *zip(*arguments, strict=True)))


def expect_partition(log: Path, offsets: Sequence[int], invalid: Set[int]) -> Expectation:
    """Compute what becomes of a partition's records.

    Args:
        log: a line for each record.
        offsets: of the records.
        invalid: those that the system took for no valid event, which decides for values that are not judged here.
    """
    unjudged = 0

    def readings() -> Iterator[tuple[int, str, dict[str, Any] | None]]:
        nonlocal unjudged
        with log.open("rb") as lines:
            for offset, line in zip(offsets, lines, strict=True):
                reading = read_value(line.removesuffix(b"\n"))
                unjudged += not reading.judged
                valid = reading.judged or offset not in invalid
                yield offset, reading.kind, reading.event if valid else None

    outcomes, dead = expected_outcomes(readings())
    return Expectation(msgspec.convert(outcomes, Outcomes), set(dead), unjudged)


def _require_text(parsed: object) -> None:
    """Raise ValueError for a lone surrogate, which the parser lets through: it is no text."""
    json.dumps(parsed, ensure_ascii=False).encode()


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


@contextmanager
def _deep_recursion() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 4 * MAX_DEPTH)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _depth(parsed: object) -> int:
    depth, level = 0, [parsed]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]
    return depth
