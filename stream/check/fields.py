"""Fields that events have beside the required ones: those that are read, and those that are ignored."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from prectr.stream.events.contract import Click, Item, ResultPage

_FIRST_LINES: Final = 2_000
_EVERY: Final = 50
"""Fields are counted on the first lines and on each 50th after them."""
MAX_NAMES: Final = 1_000

_KNOWN: Final = {
    "page": frozenset((*ResultPage.__struct_fields__, "type", "session_id")),
    "item": frozenset(Item.__struct_fields__),
    "click": frozenset((*Click.__struct_fields__, "type", "session_id")),
}
_OPTIONAL_ITEM_FIELDS: Final = ("title", "price", "category", "brand", "relevance", "position")
_decode = msgspec.json.Decoder().decode


class Feature(msgspec.Struct):
    """One field of a map of features. place: `page.features`, `item.features` or `page.context`.

    kind: `number`, `text`, or `mixed`; share: how often it is present, of the pages or items looked at.
    """

    place: str
    name: str
    kind: str
    share: float


class FieldReport(msgspec.Struct):
    """Fields on the lines that were looked at.

    Attributes:
        pages, items, clicks: how many were looked at.
        by_session: share of events that have a `session_id` and no `user_id`.
        present: share of items with each optional field.
        features: custom features and context, the most frequent first.
        ignored: share of events or items with each field that is not part of the contract, by `page.NAME` and so on;
            and of files with each column that is not read, by `column.NAME`.
    """

    pages: int
    items: int
    clicks: int
    by_session: float
    present: dict[str, float]
    features: list[Feature]
    ignored: dict[str, float]


class FieldSample:
    """Counts the fields of a sample of the valid lines as they were logged."""

    def __init__(self) -> None:
        self._valid = 0
        self._seen = {"page": 0, "item": 0, "click": 0}
        self._by_session = 0
        self._present: dict[str, int] = {}
        self._ignored: dict[tuple[str, str], int] = {}
        self._files = 0
        self._columns: dict[str, int] = {}
        self._features: dict[tuple[str, str], dict[str, int]] = {}

    def add_file(self, ignored_columns: Sequence[str]) -> None:
        """Count the columns of a file that are not read."""
        self._files += 1
        for name in ignored_columns:
            if len(self._columns) < MAX_NAMES or name in self._columns:
                self._columns[name] = self._columns.get(name, 0) + 1

    def add(self, line: bytes) -> None:
        """Count the fields of a line that is a valid event, if the line belongs to the sample."""
        self._valid += 1
        if self._valid > _FIRST_LINES and self._valid % _EVERY:
            return
        try:
            event: dict[str, Any] = _decode(line)
        except RecursionError:
            # An ignored field may be nested more deeply than the stack allows here.
            return
        self._by_session += event.get("user_id") is None and event.get("session_id") is not None
        if event["type"] == "click":
            self._count("click", event)
            return
        self._count("page", event)
        self._count_features("page.features", event.get("features"))
        self._count_features("page.context", event.get("context"))
        for item in event.get("items") or ():
            self._count("item", item)
            self._count_features("item.features", item.get("features"))
            for name in _OPTIONAL_ITEM_FIELDS:
                if item.get(name) is not None:
                    self._present[name] = self._present.get(name, 0) + 1

    def report(self) -> FieldReport:
        """Summarise."""
        items = max(self._seen["item"], 1)
        features = [
            Feature(place, name, _kind(kinds), sum(kinds.values()) / max(self._seen[place.partition(".")[0]], 1))
            for (place, name), kinds in self._features.items()
        ]
        ignored = sorted(self._ignored.items(), key=lambda entry: -entry[1])
        return FieldReport(
            pages=self._seen["page"],
            items=self._seen["item"],
            clicks=self._seen["click"],
            by_session=self._by_session / max(self._seen["page"] + self._seen["click"], 1),
            present={name: self._present.get(name, 0) / items for name in _OPTIONAL_ITEM_FIELDS},
            features=sorted(features, key=lambda feature: (feature.place, -feature.share, feature.name)),
            ignored={f"{kind}.{name}": count / self._seen[kind] for (kind, name), count in ignored}
            | {f"column.{name}": count / self._files for name, count in self._columns.items()},
        )

    def _count(self, kind: str, fields: dict[str, Any]) -> None:
        self._seen[kind] += 1
        for name in fields.keys() - _KNOWN[kind]:
            if len(self._ignored) < MAX_NAMES or (kind, name) in self._ignored:
                self._ignored[kind, name] = self._ignored.get((kind, name), 0) + 1

    def _count_features(self, place: str, features: object) -> None:
        if not isinstance(features, dict):
            return
        for name, value in features.items():
            if len(self._features) < MAX_NAMES or (place, name) in self._features:
                kinds = self._features.setdefault((place, name), {})
                kind = "text" if isinstance(value, str) else "number"
                kinds[kind] = kinds.get(kind, 0) + 1


def _kind(kinds: dict[str, int]) -> str:
    return next(iter(kinds)) if len(kinds) == 1 else "mixed"
