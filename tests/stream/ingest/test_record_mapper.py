"""Promises of the mapper: each record becomes the events that `prectr convert` makes of it, a dead letter, or both."""

import json
from pathlib import Path
from typing import Any

import pytest

from prectr.state.errors import ConfigError, InputError
from prectr.stream.kafka.ingest.record_mapper import MappedRecord
from tests.stream.convert.conversion import mapped, write_lines
from tests.stream.ingest.records import T, foreign, mapper

MAPPING = """
[page]
when = "kind == 'search'"
request_id = "id"
user_id = "user"
session_id = "session"
query = "q"
ts = "at"

[page.items]
each = "hits"
item_id = "item.sku"
price = "item.price"

[[click]]
when = "item.tapped_at"
each = "hits"
request_id = "row.id"
user_id = "row.user"
session_id = "row.session"
ts = "item.tapped_at"
item_id = "item.sku"
"""
SEARCH: dict[str, Any] = {
    "kind": "search",
    "id": 1,
    "user": "u",
    "q": "red",
    "at": T,
    "hits": [{"sku": "a", "price": 9.5}, {"sku": "b", "tapped_at": T + 5_000}],
}


def events_of(record: MappedRecord) -> list[Any]:
    return [json.loads(event.line) for event in record.events]


def test_a_record_becomes_the_events_that_convert_writes(tmp_path: Path) -> None:
    rows = [SEARCH, {**SEARCH, "id": 2, "user": None, "session": "s9", "at": T + 10_000}]
    record_mapper = mapper(tmp_path, MAPPING)
    found = [record_mapper.map(foreign(number, row)) for number, row in enumerate(rows)]
    expected, _ = mapped(tmp_path, MAPPING, write_lines(tmp_path / "rows.jsonl", rows))
    events = [event for record in found for event in events_of(record)]
    assert sorted(events, key=json.dumps) == sorted(expected, key=json.dumps)
    assert [[event.key for event in record.events] for record in found] == [["u", "u"], ["s9", "s9"]]
    assert [[event.is_click for event in record.events] for record in found] == [[False, True]] * 2
    assert [record.time for record in found] == [T, T + 5_000]
    assert [record.rejection for record in found] == [None, None]


def test_a_record_that_no_section_applies_to_is_left_out_without_a_dead_letter(tmp_path: Path) -> None:
    found = mapper(tmp_path, MAPPING).map(foreign(0, {"kind": "basket"}))
    assert (found.events, found.rejection, found.left_out) == ([], None, {"no_section_applies": 1})


def test_a_part_that_cannot_be_mapped_leaves_the_rest(tmp_path: Path) -> None:
    hits = [{"sku": "a", "price": "cheap"}, {"sku": "b", "tapped_at": "soon"}]
    found = mapper(tmp_path, MAPPING).map(foreign(0, {**SEARCH, "hits": hits}))
    assert [event["type"] for event in events_of(found)] == ["impression"]
    assert found.rejection is not None
    assert found.rejection.reason == "invalid_time"
    assert found.left_out == {"invalid_price": 1}


def test_a_page_without_items_is_left_out(tmp_path: Path) -> None:
    found = mapper(tmp_path, MAPPING).map(foreign(0, {**SEARCH, "hits": []}))
    assert (found.events, found.rejection, found.left_out) == ([], None, {"empty_page": 1})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no_value"),
        (b"{", "not_json"),
        ({**SEARCH, "id": None}, "missing_request_id"),
        ({**SEARCH, "user": " "}, "missing_user_id"),
        ({**SEARCH, "user": "u" * 257}, "invalid_field"),
        ({**SEARCH, "at": 12}, "implausible_time"),
        ({**SEARCH, "hits": "a"}, "items_not_an_array"),
    ],
)
def test_a_record_that_cannot_be_mapped_says_why(tmp_path: Path, value: Any, reason: str) -> None:
    record_mapper = mapper(tmp_path, MAPPING.partition("[[click]]")[0])
    found = record_mapper.map(foreign(0, value))
    assert found.events == []
    assert found.rejection is not None
    assert found.rejection.reason == reason
    # Nothing of it remains for the next one.
    after = record_mapper.map(foreign(1, SEARCH))
    assert (len(after.events), after.rejection, after.left_out) == (1, None, {})


def test_items_that_come_one_to_a_record_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="each"):
        mapper(tmp_path, MAPPING.replace('each = "hits"\nitem_id', "item_id", 1))


def test_a_catalogue_is_joined(tmp_path: Path) -> None:
    write_lines(tmp_path / "items.jsonl", [{"sku": "a", "name": "Shoe"}, {"name": "no sku"}])
    catalogue = '\n[catalogue]\nfile = "items.jsonl"\nkey = "sku"\n'
    mapping = MAPPING.replace('price = "item.price"', 'title = "catalogue.name"')
    found = mapper(tmp_path, mapping + catalogue).map(foreign(0, SEARCH))
    assert [item.get("title") for item in events_of(found)[0]["items"]] == ["Shoe", None]
    assert found.left_out == {"item_not_in_catalogue": 1}
    with pytest.raises(InputError):
        mapper(tmp_path, mapping + catalogue.replace("items.jsonl", "nowhere.jsonl"))
