"""Promises of the Metarank converter: metadata as of the time of a ranking, clicks by ranking, and RankLens' counts."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.stream.convert.conversion import (
    SHARED_DATA,
    Event,
    T,
    clicks_of,
    converted,
    pages_of,
    skipped,
    write_lines,
)

RANKLENS = SHARED_DATA / "ranklens-subset" / "events_small_kharif_rabi.jsonl.gz"


def item(item_id: str, ts: Any, **fields: Any) -> dict[str, Any]:
    listed = [{"name": key, "value": value} for key, value in fields.items()]
    return {"event": "item", "id": f"e-{item_id}-{ts}", "item": item_id, "timestamp": ts, "fields": listed}


def ranking(items: list[Any], ts: Any = T, **fields: Any) -> dict[str, Any]:
    listed = [each if isinstance(each, dict) else {"id": each} for each in items]
    return {
        "event": "ranking",
        "id": "r1",
        "user": "u",
        "session": "s",
        "timestamp": ts,
        "fields": [],
        "items": listed,
        **fields,
    }


def interaction(name: str, ts: Any = T + 5000, **fields: Any) -> dict[str, Any]:
    return {
        "event": "interaction",
        "id": "i",
        "item": name,
        "user": "u",
        "session": "s",
        "type": "click",
        "ranking": "r1",
        "timestamp": ts,
        "fields": [],
        **fields,
    }


def run(folder: Path, *events: Any, **options: Any) -> tuple[list[Event], dict[str, int]]:
    found, report = converted(folder, "metarank", [write_lines(folder / "a.jsonl", events)], **options)
    return found, skipped(report)


def test_a_ranking_is_a_page_and_an_interaction_its_click(tmp_path: Path) -> None:
    events, reasons = run(
        tmp_path,
        interaction("b"),
        ranking([{"id": "a", "relevancy": 0.5}, "b"], fields=[{"name": "query", "value": "red shoe"}]),
        item("a", T - 1, title="shoe", price=9.5, genres=["drama", "war"], brand="acme", stock=True, pop=3),
        item("b", T - 2, name="hat", price="x"),
    )
    user = {"user_id": "u", "session_id": "s"}
    assert events == [
        {
            "type": "impression",
            "request_id": "r1",
            **user,
            "query": "red shoe",
            "ts": T,
            "items": [
                {
                    "item_id": "a",
                    "title": "shoe",
                    "category": "drama",
                    "brand": "acme",
                    "price": 9.5,
                    "features": {"stock": 1.0, "pop": 3.0, "relevancy": 0.5},
                },
                {"item_id": "b", "title": "hat"},
            ],
        },
        {"type": "click", "request_id": "r1", **user, "item_id": "b", "ts": T + 5000, "action": "click"},
    ]
    assert reasons == {"invalid_price": 1}


def test_metadata_are_those_of_the_time_of_the_ranking(tmp_path: Path) -> None:
    events, reasons = run(
        tmp_path,
        ranking(["a"], T),
        ranking(["a"], T + 10, id="r2"),
        ranking(["a"], T + 20, id="r3"),
        ranking([{"id": "a", "fields": [{"name": "price", "value": 1}]}], T + 30, id="r4"),
        item("a", T + 20, price=3),
        item("a", T + 5, title="shoe", price=2),
    )
    found = [(page["request_id"], page["items"][0].get("title"), page["items"][0].get("price")) for page in events]
    # The item event of T + 5 is not known at T; that of T + 20 is at T + 20, and leaves the title as it was.
    assert found == [("r1", None, None), ("r2", "shoe", 2.0), ("r3", "shoe", 3.0), ("r4", "shoe", 1.0)]
    assert reasons == {"item_without_metadata": 1}


@pytest.mark.parametrize("timestamp", [T, str(T), T // 1000, "2025-03-01T10:00:00Z", "2025-03-01T11:00:00.000+01:00"])
def test_timestamps_may_be_numbers_strings_or_iso(tmp_path: Path, timestamp: Any) -> None:
    events, _ = run(tmp_path, item("a", timestamp, title="x"), ranking(["a"], timestamp))
    assert [(page["ts"], page["items"]) for page in events] == [(T, [{"item_id": "a", "title": "x"}])]


def test_what_is_no_page_or_click_is_counted_by_reason(tmp_path: Path) -> None:
    events, reasons = run(
        tmp_path,
        item("a", T - 1, title="x"),
        ranking(["a"]),
        ranking(["a"], user=None, session=None),
        ranking([], id="r2"),
        ranking(["a"] * 201, id="r3"),
        ranking(["a"], "soon"),
        {**ranking([]), "items": "a"},
        {**ranking([]), "items": ["a"]},
        interaction("a", ranking=None),
        interaction("a", type="like"),
        interaction("a", user=None, session=None),
        {"event": "user", "id": "e", "user": "u", "timestamp": T, "fields": []},
        {"event": "other", "timestamp": T},
        item("", T),
        [1],
    )
    assert len(events) == 1
    assert reasons == {
        "missing_user": 2,
        "too_many_items": 1,
        "invalid_time": 1,
        "items_not_an_array": 1,
        "items_not_objects": 1,
        "interaction_without_ranking": 1,
        "action_like": 1,
        "user_metadata": 1,
        "unknown_event": 1,
        "missing_item": 1,
        "not_an_object": 1,
    }


def test_other_interactions_are_clicks_where_they_are_named(tmp_path: Path) -> None:
    events, _ = run(tmp_path, ranking(["a"]), interaction("a", type="like"), click_actions=["like", "buy"])
    assert [event.get("action") for event in events] == [None, "like"]


def test_values_that_cannot_be_kept_cost_their_event_only(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ranking(["a"]), {**ranking(["b"], id="r2"), "big": 2**80}]))
    events, report = converted(tmp_path, "metarank", [path])
    assert [page["request_id"] for page in events] == ["r1"]
    assert skipped(report) == {"item_without_metadata": 1, "unreadable_value": 1}


@pytest.mark.skipif(not RANKLENS.exists(), reason=f"the RankLens subset is not at {RANKLENS}")
def test_the_counts_of_ranklens_are_those_of_its_readme(tmp_path: Path) -> None:
    events, report = converted(tmp_path, "metarank", [RANKLENS])
    # README: 898 items, 10 users, 47 rankings of 24 items, 272 clicks, each 5 s after its ranking.
    assert (report.rows, report.pages, report.impressions, report.clicks) == (1227, 47, 47 * 24, 272)
    assert skipped(report) == {"user_metadata": 10}
    originals = [json.loads(line) for line in gzip.decompress(RANKLENS.read_bytes()).splitlines()]
    titles = {
        each["item"]: next(field["value"] for field in each["fields"] if field["name"] == "title")
        for each in originals
        if each["event"] == "item"
    }
    assert len(titles) == 898
    pages = {page["request_id"]: page for page in pages_of(events)}
    for each in originals:
        if each["event"] == "ranking":
            page = pages[each["id"]]
            assert (page["user_id"], page["ts"], page["query"]) == (each["user"], int(each["timestamp"]), "")
            assert [shown["item_id"] for shown in page["items"]] == [shown["id"] for shown in each["items"]]
            assert [shown["title"] for shown in page["items"]] == [titles[shown["id"]] for shown in each["items"]]
    for request, user, name, ts in clicks_of(events):
        assert name in {shown["item_id"] for shown in pages[request]["items"]}
        assert (user, ts) == (pages[request]["user_id"], pages[request]["ts"] + 5000)
