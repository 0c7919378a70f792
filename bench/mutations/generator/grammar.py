"""The grammar: which mutations an event gets, in the notation of a production rule.

mutation → fields | line | fields line
fields   → field | field fields
line     → small line | large line
"""

import json
import random
from typing import Final, NamedTuple

from bench.mutations.generator.base_events import Event
from bench.mutations.generator.field_mutations import FIELD_MUTATIONS
from bench.mutations.generator.line_mutations import LARGE_LINE_MUTATIONS, LINE_MUTATIONS

_LARGE: Final = 1 / 1500
"""Share of the line mutations that give about a mebibyte."""
_MORE_FIELDS: Final = 0.25
_FIELDS: Final = tuple(FIELD_MUTATIONS)
_LINES: Final = tuple(LINE_MUTATIONS)
_LARGE_LINES: Final = tuple(LARGE_LINE_MUTATIONS)
KINDS: Final = (*_FIELDS, *_LINES, *_LARGE_LINES)


class Mutated(NamedTuple):
    """A mutated event, and the kinds of the mutations that it had."""

    line: bytes
    kinds: list[str]


def mutate(rng: random.Random, event: Event) -> Mutated:
    """Mutate an event by a random sentence of the grammar."""
    kinds: list[str] = []
    part = rng.random()
    if part < 0.7:
        event, kinds = mutate_fields(rng, event)
    line = encode(rng, event)
    if part >= 0.6:
        line, kind = mutate_line(rng, line)
        kinds = [*kinds, kind]
    return Mutated(line, kinds)


def mutate_fields(rng: random.Random, event: Event) -> tuple[Event, list[str]]:
    """Mutate one field or several; also the kinds of the mutations."""
    kinds: list[str] = []
    while not kinds or rng.random() < _MORE_FIELDS:
        kind = rng.choice(_FIELDS)
        event = FIELD_MUTATIONS[kind](rng, event)
        kinds.append(kind)
    return event, kinds


def mutate_line(rng: random.Random, line: bytes) -> tuple[bytes, str]:
    """Mutate the bytes of an event; also the kind of the mutation."""
    if rng.random() < _LARGE:
        kind = rng.choice(_LARGE_LINES)
        return LARGE_LINE_MUTATIONS[kind](rng, line), kind
    kind = rng.choice(_LINES)
    return LINE_MUTATIONS[kind](rng, line), kind


def encode(rng: random.Random, event: Event) -> bytes:
    """Encode an event, its fields sometimes in another order; texts need not be valid Unicode."""
    if rng.random() < 0.3:
        event = dict(rng.sample(list(event.items()), len(event)))
    separators = (",", ":") if rng.random() < 0.7 else (", ", ": ")
    # In two of three cases a lone surrogate is an escape, else bytes that are not UTF-8.
    text = json.dumps(event, ensure_ascii=rng.random() < 2 / 3, separators=separators)
    return text.encode(errors="surrogatepass")
