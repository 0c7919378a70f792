"""Custom features of a ranking: read from text, and compared with those that the model has learned from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from prectr.model.features.feature_summary import FeaturesSummary
from prectr.model.features.observed_features import SOURCES, ObservedFeatures, Source
from prectr.state.errors import InputError
from prectr.stream.events.contract import Context, Features
from prectr.stream.records import Example

CSV_PREFIX: Final = "features."
"""Begins the name of a CSV column with a custom feature."""
_SOURCE_NAMES: Final[Mapping[Source, str]] = {
    "item": "candidate feature",
    "page": "page feature",
    "context": "context",
}


def feature_value(text: str) -> float | str:
    """The value of a feature as text has it: a number if it is a finite one, else a string, as JSON or as it stands."""
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        # Underscores between digits are Python's, not a log's.
        return number if math.isfinite(number) and "_" not in text else text
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        return text


def parse_features(pairs: Iterable[str], option: str) -> dict[str, float | str] | None:
    """Read NAME=VALUE pairs of a command line; None without any. InputError: one is not such a pair, or too long."""
    values = ((name, feature_value(value)) for name, value in _pairs(pairs, option))
    features: dict[str, float | str] | None = _parsed(values, Features, option)
    return features


def parse_context(pairs: Iterable[str], option: str) -> dict[str, str] | None:
    """The same of a context, whose values are strings."""
    context: dict[str, str] | None = _parsed(_pairs(pairs, option), Context, option)
    return context


def _pairs(pairs: Iterable[str], option: str) -> Iterable[tuple[str, str]]:
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise InputError(f"{option} {pair}: give a name and a value, such as {option} device=phone")
        yield name, value


def _parsed(pairs: Iterable[tuple[str, object]], kind: Any, option: str) -> Any:
    found = dict(pairs)
    try:
        return msgspec.convert(found, kind) if found else None
    except msgspec.ValidationError as error:
        raise InputError(f"{option}: {error}") from error


def feature_notes(examples: Sequence[Example], known: FeaturesSummary) -> list[str]:
    """Remarks where the features of a ranking are not those that the model reads."""
    observed = ObservedFeatures.of(examples)
    notes = []
    for source in SOURCES:
        read = {(each.name, str(each.kind)) for each in known.read if each.source == source}
        given = {(name, "string" if kind is str else "number") for name, kind in observed.columns[source]}
        notes += _unread(source, given, read)
        absent = sorted(name for name, kind in read - given if not any(name == each for each, _ in given))
        if absent:
            notes.append(f"scored as missing, since nothing has them: {_SOURCE_NAMES[source]} {', '.join(absent)}")
    return notes


def _unread(source: Source, given: Iterable[tuple[str, str]], read: Iterable[tuple[str, str]]) -> list[str]:
    """given, read: names and kinds."""
    notes = []
    for name, kind in sorted(given):
        if (name, kind) in read:
            continue
        other = next((known for each, known in read if each == name), None)
        reason = (
            "the model has never read it"
            if other is None
            else f"it is a {kind} here and a {other} in the log, so it counts as missing"
        )
        notes.append(f"{_SOURCE_NAMES[source]} {name!r} is ignored: {reason}")
    return notes
