"""Whatever the rows: a conversion counts and never fails, events are valid, and a draft is a mapping or one error."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from prectr.state.errors import InputError
from prectr.stream.convert.draft.columns import FIELD_NAMES
from prectr.stream.convert.draft.mapping_draft import draft_mapping
from prectr.stream.events.decode import decode_lines
from tests.stream.convert.conversion import T, converted, mapped, write_lines

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([T, T + 1, str(T), "2025-03-01", "2025-03-01T10:00:00", "i1", "i2", "i1|i2", "[1, 2]", "{i1,i2}"]),
    st.sampled_from(["click", "impression", "view", "item", "ranking", "interaction", "user", "ubi", "", "\ud800"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=8,
)
NAMES = st.one_of(
    st.sampled_from([name for names in FIELD_NAMES.values() for name in names]),
    st.sampled_from(["Item IDs", "userId", "a.b", 'quo"te', "new\nline", "event_attributes", "query_response_hit_ids"]),
    st.text(max_size=5),
)
UBI = st.fixed_dictionaries(
    {},
    optional={
        "action_name": SCALARS,
        "query_id": SCALARS,
        "client_id": SCALARS,
        "session_id": SCALARS,
        "timestamp": SCALARS,
        "user_query": SCALARS,
        "application": VALUES,
        "query_response_hit_ids": VALUES,
        "event_attributes": st.one_of(
            VALUES,
            st.fixed_dictionaries(
                {},
                optional={
                    "object": st.one_of(VALUES, st.fixed_dictionaries({"object_id": SCALARS, "description": VALUES})),
                    "position": st.one_of(VALUES, st.fixed_dictionaries({"ordinal": VALUES})),
                },
            ),
        ),
    },
)
FIELDS = st.lists(st.fixed_dictionaries({"name": st.sampled_from(["title", "price", "query", "x"]), "value": VALUES}))
METARANK = st.fixed_dictionaries(
    {
        "event": st.sampled_from(["item", "ranking", "interaction", "user", 1]),
        "timestamp": st.one_of(st.just(T), SCALARS),
    },
    optional={
        "id": SCALARS,
        "item": SCALARS,
        "user": SCALARS,
        "session": SCALARS,
        "type": SCALARS,
        "ranking": SCALARS,
        "fields": st.one_of(VALUES, FIELDS),
        "items": st.one_of(VALUES, st.lists(st.fixed_dictionaries({"id": SCALARS, "fields": FIELDS}), max_size=4)),
    },
)
FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

MAPPING = """
[time]
zone = "UTC"
[page]
request_id = "a"
user_id = "b"
session_id = "c"
query = "d"
ts = "e"
[page.context]
f = "f"
[page.features]
f = "f"
[page.items]
each = "g"
item_id = "item.h || item"
title = "item.d"
relevance = "index"
price = "times(item.f, `2`)"
position = "at(row.g, index)"
[page.items.features]
d = "item"
[[click]]
request_id = "a"
user_id = "b"
ts = "e"
when = "d"
item_id = "d"
[[click]]
request_id = "row.a"
session_id = "row.c"
ts = "item.e"
each = "g"
item_id = "item"
action = "row.d"
"""
BY_ROW = MAPPING.replace('each = "g"\nitem_id = "item.h || item"', 'item_id = "item.d"')


def write(folder: Path, rows: list[Any]) -> Path:
    return write_lines(folder / "in.jsonl", rows)


def check_log(folder: Path, count: int) -> None:
    decoded = decode_lines((folder / "converted.jsonl").read_bytes().splitlines())
    assert len(decoded) == count
    assert not any(hasattr(event, "reason") for event in decoded)


@given(rows=st.lists(st.one_of(UBI, VALUES), max_size=6))
@FEW
def test_any_documents_as_ubi(tmp_path: Path, rows: list[Any]) -> None:
    events, report = converted(tmp_path, "ubi", [write(tmp_path, [{}, *rows])], click_actions=["click", "item"])
    check_log(tmp_path, report.pages + report.clicks)
    assert len(events) == report.pages + report.clicks


@given(rows=st.lists(st.one_of(METARANK, VALUES), max_size=6))
@FEW
def test_any_events_as_those_of_metarank(tmp_path: Path, rows: list[Any]) -> None:
    _, report = converted(tmp_path, "metarank", [write(tmp_path, [{}, *rows])])
    check_log(tmp_path, report.pages + report.clicks)


@pytest.mark.parametrize("mapping", [MAPPING, BY_ROW], ids=["arrays", "rows"])
@given(rows=st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys("abcdefg", VALUES)), max_size=6))
@FEW
def test_any_rows_by_a_mapping(tmp_path: Path, mapping: str, rows: list[dict[str, Any]]) -> None:
    _, report = mapped(tmp_path, mapping, write(tmp_path, rows))
    check_log(tmp_path, report.pages + report.clicks)
    assert report.rows == len(rows)


@given(rows=st.lists(st.dictionaries(NAMES, VALUES, max_size=6), min_size=1, max_size=4))
@example(rows=[{"ts": T, "user_id": "u", "items": ["\u0085'", '"', "\\"], "event": "it's a click", "clicked": [1, 0]}])
@example(rows=[{"ts": T, "items": [{"a": 1}], "clicked": [{"b": 1}]}])
@settings(FEW, max_examples=80)
def test_any_rows_are_drafted_or_rejected(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = write(tmp_path, rows)
    try:
        draft = draft_mapping([path], path)
    except InputError:
        return
    _, report = mapped(tmp_path, draft.text, path)
    check_log(tmp_path, report.pages + report.clicks)


@given(content=st.binary(max_size=200), name=st.sampled_from(["a.csv", "a.json", "a.jsonl", "a.jsonl.gz", "a.parquet"]))
@example(content=b"\xff\xfea\x00", name="a.csv")
@example(content=b'"', name="a.csv")
@example(content=b"a,b\n\xed\xa0\x80,2\n", name="a.csv")
@example(content=b"[", name="a.json")
@example(content=b"\x1f\x8b", name="a.csv")
@settings(FEW, max_examples=80)
def test_any_bytes_are_read_or_rejected(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with contextlib.suppress(InputError):
        converted(tmp_path, "metarank", [tmp_path / name])


def test_rows_of_strange_but_valid_json_are_kept(tmp_path: Path) -> None:
    row = json.loads('{"a": 1e2, "b": 12345678901234567890, "d": "\\u0000", "e": 1740823200.0, "g": [1, "2"]}')
    events, report = mapped(tmp_path, MAPPING, write(tmp_path, [row]))
    page = next(event for event in events if event["type"] == "impression")
    assert (page["request_id"], page["user_id"], page["ts"]) == ("100", "12345678901234567890", T)
    assert report.pages == 1
