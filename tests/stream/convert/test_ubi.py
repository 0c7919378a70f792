"""Promises of the UBI converter: pages of one event for each item, shapes of spec 1.0 to 1.3, counts of Chorus."""

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import prectr.stream.convert.ubi
from prectr.stream.convert.ubi import PAGE_GAP
from tests.stream.convert.conversion import (
    SHARED_DATA,
    Event,
    T,
    clicks_of,
    converted,
    events_in,
    pages_of,
    skipped,
    write_lines,
)

CHORUS = SHARED_DATA / "ubi-chorus" / "ubi_queries_events.ndjson.gz"


def event(action: str, item: Any, ordinal: Any, ts: Any, **fields: Any) -> dict[str, Any]:
    return {
        "application": "shop",
        "action_name": action,
        "query_id": "q1",
        "client_id": "c1",
        "session_id": "s1",
        "timestamp": ts,
        "event_attributes": {"object": {"object_id": item}, "position": {"ordinal": ordinal}},
        **fields,
    }


def query(text: str = "red shoe", ts: Any = T, **fields: Any) -> dict[str, Any]:
    return {"application": "shop", "query_id": "q1", "client_id": "c1", "user_query": text, "timestamp": ts, **fields}


def shown_on(page: Event) -> list[tuple[str, int | None]]:
    return [(item["item_id"], item.get("position")) for item in page["items"]]


def test_impressions_of_a_query_are_a_page_and_its_clicks_name_it(tmp_path: Path) -> None:
    documents = [
        event("impression", "b", 2, T + 11),
        event("impression", "a", 1, T + 10),
        event("click", "b", 2, T + 50),
        event("add_to_cart", "b", 2, T + 60),
        query(),
    ]
    events, report = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents)])
    user = {"user_id": "c1", "session_id": "s1"}
    assert events == [
        {
            "type": "impression",
            "request_id": "q1",
            **user,
            "query": "red shoe",
            "ts": T + 10,
            "items": [{"item_id": "a", "position": 1}, {"item_id": "b", "position": 2}],
        },
        {"type": "click", "request_id": "q1", **user, "item_id": "b", "ts": T + 50, "action": "click"},
    ]
    assert (report.rows, report.clicks_on_page, report.clicks_off_page, report.clicks_without_page) == (5, 1, 0, 0)
    assert skipped(report) == {"action_add_to_cart": 1}


def wrapped(form: str, documents: list[dict[str, Any]]) -> list[Any]:
    if form == "bulk":
        return [line for document in documents for line in ({"index": {"_index": "ubi_events"}}, document)]
    if form == "create":
        return [line for document in documents for line in ({"create": {}}, document)]
    if form == "export":
        return [{"_index": "ubi_events", "_id": str(n), "_source": each} for n, each in enumerate(documents)]
    return documents


@pytest.mark.parametrize("form", ["bulk", "create", "export", "plain", "array", "shuffled"])
def test_bulk_plain_and_exported_files_in_any_order_give_the_same_events(tmp_path: Path, form: str) -> None:
    documents = [
        query(),
        *(event("impression", f"i{n}", n, T + n) for n in range(1, 6)),
        event("click", "i3", 3, T + 99),
    ]
    expected, _ = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents)])
    path = tmp_path / "b.json"
    if form == "shuffled":
        random.Random(1).shuffle(documents)
    if form == "array":
        path.write_text(json.dumps(documents, indent=2))
    else:
        write_lines(path, wrapped(form, documents))
    events, report = converted(tmp_path, "ubi", [path])
    assert events == expected
    assert report.rows == 7


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        # 1.0: the ordinal is an object, the title is in `name`, the id may be the engine's own.
        ({"object": {"internal_id": 7, "name": "shoe"}, "position": {"ordinal": {"index": 1}}}, {"title": "shoe"}),
        ({"object": {"object_id": "7", "object_id_type": "product"}, "position": {"ordinal": 1}}, {}),
        ({"object": {"object_id": 7, "description": "shoe"}, "position": {"ordinal": 1}}, {"title": "shoe"}),
        (
            {
                "object": {"object_id": "7", "object_id_field": "sku", "object_detail": {"price": 9.5}},
                "position": {"ordinal": 1},
            },
            {"price": 9.5},
        ),
    ],
)
def test_objects_and_positions_of_every_version(tmp_path: Path, attributes: Any, expected: Event) -> None:
    documents = [event("impression", "", 0, T, event_attributes=attributes)]
    [page], report = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents)])
    assert page["items"] == [{"item_id": "7", "position": 1, **expected}]
    assert report.skipped == {}


@pytest.mark.parametrize(
    "timestamp",
    [
        T,
        str(T),
        T // 1000,
        "2025-03-01T10:00:00Z",
        "2025-03-01T10:00:00.000+0000",
        "2025-03-01T11:00:00+01:00",
        "2025-03-01T10:00:00",
    ],
)
def test_every_form_of_time_also_without_a_zone_as_opensearch_has_it(tmp_path: Path, timestamp: Any) -> None:
    documents = [event("impression", "a", 1, timestamp)]
    [page], _ = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents)])
    assert page["ts"] == T


def test_positions_from_0_and_from_1_are_known_by_the_lowest_of_an_application(tmp_path: Path) -> None:
    documents = [
        *(event("impression", f"a{n}", n, T, application="zero") for n in range(3)),
        *(event("impression", f"b{n}", n, T, application="one", query_id="q2") for n in range(1, 4)),
        # A page without its first item does not move the count.
        *(event("impression", f"c{n}", n, T, application="zero", query_id="q3") for n in (2, 1)),
    ]
    events, _ = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents)])
    assert {page["request_id"]: shown_on(page) for page in events} == {
        "q1": [("a0", 1), ("a1", 2), ("a2", 3)],
        "q2": [("b1", 1), ("b2", 2), ("b3", 3)],
        "q3": [("c1", 2), ("c2", 3)],
    }


def test_a_repeated_ordinal_or_a_long_pause_begins_another_page(tmp_path: Path) -> None:
    documents = [
        event("impression", "a", 1, T),
        event("impression", "b", 2, T + 1),
        event("click", "a", 1, T + 5),
        event("impression", "b", 1, T + 10),
        event("click", "b", 1, T + 15),
        event("impression", "c", 3, T + 10 + PAGE_GAP),
        event("impression", "d", 4, T + 11 + 2 * PAGE_GAP),
        event("click", "a", 1, T + 12 + 2 * PAGE_GAP),
        event("click", "z", 1, T + 13 + 2 * PAGE_GAP),
    ]
    events, report = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents)])
    assert [(page["request_id"], [name for name, _ in shown_on(page)]) for page in pages_of(events)] == [
        ("q1", ["a", "b"]),
        ("q1#2", ["b", "c"]),
        ("q1#3", ["d"]),
    ]
    # A click belongs to the newest page before it with its item; one on an item of no page, to the newest.
    assert [(request, item) for request, _, item, _ in clicks_of(events)] == [
        ("q1", "a"),
        ("q1#2", "b"),
        ("q1", "a"),
        ("q1#3", "z"),
    ]
    assert (report.clicks_on_page, report.clicks_off_page) == (3, 1)


def test_without_ordinals_a_repeated_item_begins_another_page(tmp_path: Path) -> None:
    documents = [event("impression", item, None, T + n) for n, item in enumerate("abcab")]
    events, _ = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents)])
    assert [shown_on(page) for page in events] == [
        [("a", None), ("b", None), ("c", None)],
        [("a", None), ("b", None)],
    ]


def test_hits_of_the_engine_are_the_page_where_no_impression_was_recorded(tmp_path: Path) -> None:
    documents = [
        query(query_response_hit_ids=["x", "y", "z"]),
        event("click", "y", 2, T + 9),
        query(query_id="q2", query_response_hit_ids=["x", "y"]),
        event("impression", "y", 2, T + 1, query_id="q2"),
        query(query_id="q3", query_response_hit_ids=[]),
        event("click", "x", 1, T + 3, query_id="q3"),
    ]
    events, report = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents)])
    assert {page["request_id"]: shown_on(page) for page in pages_of(events)} == {
        "q1": [("x", None), ("y", None), ("z", None)],
        "q2": [("y", 2)],
    }
    assert (report.clicks_on_page, report.clicks_off_page, report.clicks_without_page) == (1, 0, 1)


def test_clients_of_one_query_id_have_pages_of_their_own(tmp_path: Path) -> None:
    documents = [
        event("impression", "a", 1, T),
        event("impression", "b", 1, T + 1, client_id="c2"),
        event("impression", "c", 1, T + 2, client_id=None, session_id="s9"),
        event("impression", "d", 1, T + 3, client_id=None, session_id=None),
        query(),
    ]
    events, report = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents)])
    assert [(page.get("user_id") or page["session_id"], page["query"]) for page in events] == [
        ("c1", "red shoe"),
        ("c2", "red shoe"),
        ("s9", "red shoe"),
    ]
    assert skipped(report) == {"missing_client_id": 1}


def test_views_are_impressions_only_where_an_application_records_no_others(tmp_path: Path) -> None:
    documents = [
        event("view", "a", 1, T, application="old"),
        event("impression", "a", 1, T, query_id="q2"),
        event("view", "a", 1, T + 9, query_id="q2"),
    ]
    events, report = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents)])
    assert [page["request_id"] for page in events] == ["q1", "q2"]
    assert skipped(report) == {"view_beside_impressions": 1}


def test_what_is_no_document_of_ubi_is_counted_by_reason(tmp_path: Path) -> None:
    documents: list[Any] = [
        event("impression", None, 1, T),
        event("impression", "a", -1, T),
        event("impression", "b", "first", T),
        event("click", "a", {"index": "x"}, T + 1),
        event("impression", "a", 1, "soon", query_id="q2"),
        event("impression", "a", 1, T, query_id=None),
        {"_source": "text"},
        {"some": "thing"},
        "text",
    ]
    events, report = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents)])
    # Items are worth keeping without a position, and a click needs none.
    assert [len(page["items"]) for page in pages_of(events)] == [2]
    assert len(clicks_of(events)) == 1
    assert skipped(report) == {
        "missing_object_id": 1,
        "invalid_ordinal": 2,
        "invalid_time": 1,
        "missing_query_id": 2,
        "not_an_object": 2,
    }


def test_a_query_id_with_millions_of_events_is_cut_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prectr.stream.convert.ubi, "MAX_RECORDS", 10)
    documents = [event("impression", f"i{n}", n, T + n, query_id="undefined") for n in range(1, 26)]
    others = [event("impression", "a", 1, T, query_id="undefined", client_id="c2")]
    [first, second], report = converted(tmp_path, "ubi", [write_lines(tmp_path / "a.ndjson", documents + others)])
    assert {page["user_id"]: len(page["items"]) for page in (first, second)} == {"c1": 10, "c2": 1}
    assert skipped(report) == {"too_many_events_of_a_query": 15}


@pytest.mark.parametrize("actions", [("click",), ("add_to_cart", "purchase")])
def test_the_actions_that_are_clicks_are_chosen(tmp_path: Path, actions: tuple[str, ...]) -> None:
    documents = [event("impression", "a", 1, T)]
    documents += [event(name, "a", 1, T + n) for n, name in enumerate(("click", "add_to_cart", "purchase"), 1)]
    path = write_lines(tmp_path / "a.ndjson", documents)
    events, _ = converted(tmp_path, "ubi", [path], click_actions=actions)
    assert tuple(each["action"] for each in events[1:]) == actions


@pytest.mark.skipif(not CHORUS.exists(), reason=f"the UBI sample of Chorus is not at {CHORUS}")
def test_the_counts_of_chorus_are_those_of_its_readme(tmp_path: Path) -> None:
    events, report = converted(tmp_path, "ubi", [CHORUS])
    documents = [json.loads(line) for line in gzip.decompress(CHORUS.read_bytes()).splitlines()[1::2]]
    recorded = Counter((each["application"], each.get("action_name")) for each in documents)
    assert report.rows == len(documents) == 473 + 3448
    # README: 999 impressions and 227 clicks of the shop, 200 pages of 5 items and 60 clicks of the generator.
    assert recorded["Chorus", "impression"] == 999
    assert recorded["esci_ubi_sample", "impression"] == 1000
    assert (report.clicks, report.clicks_off_page) == (227 + 60, 29)
    # The README calls the hits of queries empty; 81 have some, and are pages where nothing else was recorded. So the
    # 12 clicks without a page have one here.
    with_impressions = {each["query_id"] for each in documents if each.get("action_name") == "impression"}
    hits = [
        each["query_response_hit_ids"]
        for each in documents
        if "action_name" not in each and each.get("query_response_hit_ids") and each["query_id"] not in with_impressions
    ]
    assert report.impressions == 999 + 1000 + sum(map(len, hits))
    assert (report.clicks_on_page, report.clicks_without_page) == (186 + 12 + 60, 0)
    pages = pages_of(events)
    generated = [
        page for page in pages if len(page["items"]) == 5 and page["query"] and "title" not in page["items"][0]
    ]
    assert sum([item["position"] for item in page["items"]] == [1, 2, 3, 4, 5] for page in generated) >= 200
    assert len({page["request_id"] for page in pages}) == len(pages)
    assert [each["ts"] for each in events] == sorted(each["ts"] for each in events)
    # Impressions and clicks, one by one, as a reader of the documents without any page would list them.
    assert Counter((user, item, ts) for _, user, item, ts in clicks_of(events)).total() == 287
    listed = Counter(
        (each["client_id"], str(each["event_attributes"]["object"]["object_id"]))
        for each in documents
        if each.get("action_name") == "impression"
    )
    in_events = Counter((page["user_id"], item["item_id"]) for page in pages for item in page["items"])
    assert all(in_events[key] >= count for key, count in listed.items())
    assert events == events_in(tmp_path / "converted.jsonl")
