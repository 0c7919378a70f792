"""Edits made by hypothesis: a pool of them, the same for a seed, to be applied to many events."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from bench.mutations.generator.base_events import Event
from bench.mutations.generator.field_mutations import paths, replace_at
from bench.mutations.generator.grammar import encode

_FIELD_NAMES: Final = ("type", "request_id", "user_id", "session_id", "item_id", "ts", "query", "items", "context")


@dataclass(frozen=True, slots=True)
class Replaced:
    """Another value at a place of the event; place: from 0 to 1, of all its places."""

    place: float
    value: object


@dataclass(frozen=True, slots=True)
class Added:
    """A field of the event, in place of one of that name."""

    name: str
    value: object


@dataclass(frozen=True, slots=True)
class Spliced:
    """Bytes that take the place of others; at: from 0 to 1 of the length."""

    at: float
    removed: int
    inserted: bytes


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A line that has nothing of the event."""

    line: bytes


Edit = Replaced | Added | Spliced | Rewritten


def _values() -> st.SearchStrategy[object]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=40)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
        max_leaves=8,
    )


def _edits() -> st.SearchStrategy[Edit]:
    values, places = _values(), st.floats(0, 1, exclude_max=True)
    replaced = st.builds(Replaced, places, values)
    added = st.builds(Added, st.sampled_from(_FIELD_NAMES) | st.text(max_size=20), values)
    inserted = st.binary(max_size=30) | st.text(st.characters(max_codepoint=127), max_size=20).map(str.encode)
    spliced = st.builds(Spliced, places, st.integers(0, 30), inserted)
    rewritten = st.builds(Rewritten, st.binary(max_size=80) | values.map(_dumped))
    return st.one_of(replaced, replaced, replaced, added, added, spliced, spliced, rewritten)


def _dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")


def edit_pool(size: int, seed_value: int) -> list[Edit]:
    """Have hypothesis make `size` edits, some of them equal; the same for a seed and a version of hypothesis."""
    pool: list[Edit] = []

    @seed(seed_value)
    @settings(
        max_examples=size,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(_edits())
    def collect(edit: Edit) -> None:
        pool.append(edit)

    collect()
    return pool


def apply_edits(rng: random.Random, event: Event, edits: Sequence[Edit]) -> bytes:
    """Apply edits to an event: those of fields first, then those of its bytes."""
    for edit in edits:
        if isinstance(edit, Replaced) and (places := paths(event)):
            event = replace_at(event, places[int(edit.place * len(places))], edit.value)
        elif isinstance(edit, Added):
            event = event | {edit.name: edit.value}
    line = encode(rng, event)
    for edit in edits:
        if isinstance(edit, Spliced):
            at = int(edit.at * len(line))
            line = line[:at] + edit.inserted + line[at + edit.removed :]
        elif isinstance(edit, Rewritten):
            line = edit.line
    return line
