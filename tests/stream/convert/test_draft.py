"""Promises of drafts: for each layout of a log, the drafted mapping converts it to the events that are meant.

Most logs are these two searches: "red shoe" of user 7 shows i1, i2, i3, and i3 is clicked, 5 s later if there are times
of clicks; "hat" of user 8 a minute later shows i4, i5 without a click.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prectr.state.errors import InputError
from prectr.stream.convert.draft.mapping_draft import Draft, draft_mapping
from tests.stream.convert.conversion import Event, T, clicks_of, mapped, pages_of, write_lines

LATER = T + 60_000
Click = tuple[str, str, str, int]


def table(path: Path, header: str, *rows: list[Any], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([header.split(","), *rows])
    return path


def drafted(folder: Path, *inputs: Path, catalogue: Path | None = None) -> tuple[list[Event], list[Click], Draft]:
    """Pages and clicks of a log by its own draft, and the draft; all rows must be used."""
    draft = draft_mapping(inputs, catalogue)
    events, report = mapped(folder, draft.text, *inputs)
    assert report.skipped == {}, (report.skipped, draft.text)
    return pages_of(events), clicks_of(events), draft


def summary(pages: list[Event]) -> list[tuple[str, str, str, int, str]]:
    return [
        (
            page["request_id"],
            page["user_id"],
            page["query"],
            page["ts"],
            " ".join(item["item_id"] for item in page["items"]),
        )
        for page in pages
    ]


TWO_PAGES = [("s1", "7", "red shoe", T, "i1 i2 i3"), ("s2", "8", "hat", LATER, "i4 i5")]
AT_PAGE = [("s1", "7", "i3", T)]
LATER_CLICK = [("s1", "7", "i3", T + 5000)]


def json_in_cells(folder: Path) -> Path:
    return table(
        folder / "a.csv",
        "search_id,user_id,query,timestamp,results,clicked",
        ["s1", 7, "red shoe", T, '["i1", "i2", "i3"]', '["i3"]'],
        ["s2", 8, "hat", LATER, '["i4", "i5"]', "[]"],
    )


def bars_and_flags(folder: Path) -> Path:
    return table(
        folder / "a.csv",
        "search_id;user_id;query;timestamp;item_ids;is_clicked".replace(";", ","),
        ["s1", 7, "red shoe", T, "i1|i2|i3", "0|0|1"],
        ["s2", 8, "hat", LATER, "i4|i5", "0|0"],
        delimiter=";",
    )


def seconds_and_one_click(folder: Path) -> Path:
    return table(
        folder / "a.tsv",
        "searchId,customerId,searchTerm,eventTime,shownItems,clickedItemId,clickTime",
        ["s1", 7, "red shoe", T // 1000, "i1;i2;i3", "i3", T // 1000 + 5],
        ["s2", 8, "hat", LATER // 1000, "i4;i5", "", ""],
        delimiter="\t",
    )


def names_with_blanks(folder: Path) -> Path:
    return table(
        folder / "a.csv",
        "Search ID,User ID,Search Query,Event Time,Shown Items,Clicked Items,Item IDs shown",
        ["s1", 7, "red shoe", "2025-03-01 10:00:00", "i1|i2|i3", "i3", "x"],
        ["s2", 8, "hat", "2025-03-01 10:01:00", "i4|i5", "", "y"],
    )


def parquet_lists(folder: Path) -> Path:
    times = pa.array([T * 1000, LATER * 1000], pa.timestamp("us", "UTC"))
    columns = {"query_id": ["s1", "s2"], "visitor_id": [7, 8], "q": ["red shoe", "hat"], "event_time": times}
    lists = {"product_ids": [["i1", "i2", "i3"], ["i4", "i5"]], "clicked_product_ids": [["i3"], []]}
    pq.write_table(pa.table({**columns, **lists}), folder / "a.parquet")
    return folder / "a.parquet"


def parquet_objects(folder: Path) -> Path:
    items = [
        [
            {"product_id": "i1", "clicked": False},
            {"product_id": "i2", "clicked": False},
            {"product_id": "i3", "clicked": True},
        ],
        [{"product_id": "i4", "clicked": False}, {"product_id": "i5", "clicked": False}],
    ]
    times = pa.array([T * 1_000_000, LATER * 1_000_000], pa.timestamp("ns"))
    columns = {"search_id": ["s1", "s2"], "user": ["7", "8"], "query": ["red shoe", "hat"], "ts": times}
    pq.write_table(pa.table({**columns, "results": items}), folder / "a.parquet")
    return folder / "a.parquet"


def objects_with_times_of_clicks(folder: Path) -> Path:
    clicked = {"id": "i3", "clicked": True, "clicked_at": "2025-03-01T10:00:05Z"}
    rows = [
        {"items": [{"id": "i1", "clicked": False}, {"id": "i2", "clicked": False}, clicked]},
        {"items": [{"id": "i4", "clicked": False}, {"id": "i5", "clicked": False}]},
    ]
    heads = [("s1", 7, "red shoe", "2025-03-01T10:00:00Z"), ("s2", 8, "hat", "2025-03-01T10:01:00Z")]
    rows = [
        {"requestId": request, "userId": user, "query": query, "timestamp": ts, **row}
        for (request, user, query, ts), row in zip(heads, rows, strict=True)
    ]
    return write_lines(folder / "a.jsonl", rows)


def nested_objects(folder: Path) -> Path:
    rows = [
        {
            "id": request,
            "user": {"id": user, "country": "de"},
            "search": {"query": query},
            "timestamp": ts,
            "response": {"products": [{"product": {"id": item}} for item in items.split()]},
            "clicks": [{"product_id": item, "ts": ts + 5000} for item in clicked],
        }
        for request, user, query, ts, items, clicked in [(*TWO_PAGES[0], ["i3"]), (*TWO_PAGES[1], [])]
    ]
    (folder / "a.json").write_text(json.dumps(rows, indent=1))
    return folder / "a.json"


def rows_with_flags(folder: Path) -> Path:
    rows = [
        [request, user, query, ts, item, number, int(item == "i3"), T + 5000 if item == "i3" else ""]
        for request, user, query, ts, items in TWO_PAGES
        for number, item in enumerate(items.split())
    ]
    return table(folder / "a.csv", "search_id,user_id,query,ts,sku,rank,clicked,click_ts", *rows)


def rows_with_the_clicked_item(folder: Path) -> Path:
    rows = [
        [request, user, query, ts, item, "i3" if request == "s1" else ""]
        for request, user, query, ts, items in TWO_PAGES
        for item in items.split()
    ]
    return table(folder / "a.csv", "search_id,user_id,query,ts,item_id,clicked_item_id", *rows)


def event_rows(folder: Path) -> Path:
    rows = [
        ["impression", request, user, query, ts, item, "shoes|sale"]
        for request, user, query, ts, items in TWO_PAGES
        for item in items.split()
    ]
    click = ["Click", "s1", 7, "", T + 5000, "i3", ""]
    return table(folder / "a.csv", "event_type,search_id,user_id,query,ts,item_id,category", *rows, click)


def event_rows_with_arrays(folder: Path) -> Path:
    rows: list[Any] = [
        {"event": "search", "search_id": request, "user_id": user, "query": query, "ts": ts, "results": items.split()}
        for request, user, query, ts, items in TWO_PAGES
    ]
    rows += [{"event": "click", "search_id": "s1", "user_id": 7, "ts": T + 5000, "item_id": "i3"}]
    return write_lines(folder / "a.jsonl", rows)


def events_of_google_analytics(folder: Path) -> Path:
    """The item of a click is in an array like those of a page."""
    rows = [
        {
            "event_name": kind,
            "event_timestamp": ts * 1000,
            "user_pseudo_id": user,
            "params": {"search_id": request, "search_term": query},
            "ecommerce": {"items": [{"item_id": item} for item in items.split()]},
        }
        for kind, request, user, query, ts, items in [
            *(("view_search_results", *page) for page in TWO_PAGES),
            ("select_item", "s1", "7", None, T + 5000, "i3"),
        ]
    ]
    return write_lines(folder / "a.jsonl", rows)


def events_of_segment(folder: Path) -> Path:
    def row(event: str, user: str, ts: str, **properties: Any) -> dict[str, Any]:
        return {"type": "track", "event": event, "userId": user, "timestamp": ts, "properties": properties}

    shown = [
        [{"product_id": item, "position": n} for n, item in enumerate(items.split(), 1)] for *_, items in TWO_PAGES
    ]
    rows = [
        row("Products Searched", "7", "2025-03-01T10:00:00.000Z", search_id="s1", query="red shoe", products=shown[0]),
        row("Products Searched", "8", "2025-03-01T10:01:00.000Z", search_id="s2", query="hat", products=shown[1]),
        row("Product Clicked", "7", "2025-03-01T10:00:05.000Z", search_id="s1", product_id="i3"),
    ]
    return write_lines(folder / "a.jsonl", rows)


def click_rows_without_a_type(folder: Path) -> Path:
    rows: list[Any] = [
        {"search_id": request, "user_id": user, "query": query, "ts": ts, "results": items.split()}
        for request, user, query, ts, items in TWO_PAGES
    ]
    rows += [{"search_id": "s1", "user_id": 7, "click_time": T + 5000, "item_id": "i3"}]
    return write_lines(folder / "a.jsonl", rows)


def date_and_time(folder: Path) -> Path:
    return table(
        folder / "a.csv",
        "search_id,user_id,query,date,time,results,clicked_item",
        ["s1", 7, "red shoe", "2025-03-01", "10:00:00", "i1|i2|i3", "i3"],
        ["s2", 8, "hat", "2025-03-01", "10:01:00", "i4|i5", ""],
    )


def times_of_bigquery(folder: Path) -> Path:
    return table(
        folder / "a.csv",
        "search_id,user_id,query,event_timestamp,results,clicked_item",
        ["s1", 7, "red shoe", "2025-03-01 10:00:00 UTC", '["i1","i2","i3"]', "i3"],
        ["s2", 8, "hat", "2025-03-01 10:01:00.000000 UTC", '["i4","i5"]', ""],
    )


def click_position(folder: Path) -> Path:
    return table(
        folder / "a.csv",
        "search_id,user_id,query,ts,results,click_position",
        ["s1", 7, "red shoe", T, "i1|i2|i3", 3],
        ["s2", 8, "hat", LATER, "i4|i5", ""],
    )


def python_lists(folder: Path) -> Path:
    """As pandas writes lists into a CSV file."""
    return table(
        folder / "a.csv",
        "search_id,user_id,query,ts,results,clicked",
        ["s1", 7, "red shoe", T, "['i1', 'i2', 'i3']", "['i3']"],
        ["s2", 8, "hat", LATER, "['i4', 'i5']", "[]"],
    )


def python_objects(folder: Path) -> Path:
    return table(
        folder / "a.csv",
        "search_id,user_id,query,ts,results",
        ["s1", 7, "red shoe", T, str([{"id": f"i{n}", "clicked": n == 3} for n in (1, 2, 3)])],
        ["s2", 8, "hat", LATER, "[{'id': 'i4', 'clicked': False}, {'id': 'i5', 'clicked': False}]"],
    )


def numpy_arrays(folder: Path) -> Path:
    return table(
        folder / "a.csv",
        "search_id,user_id,query,ts,results,clicked_item",
        ["s1", 7, "red shoe", T, "['i1' 'i2'\n 'i3']", "i3"],
        ["s2", 8, "hat", LATER, "['i4' 'i5']", ""],
    )


def postgresql_arrays(folder: Path) -> Path:
    return table(
        folder / "a.csv",
        "search_id,user_id,query,ts,results,clicked_items",
        ["s1", 7, "red shoe", "2025-03-01 10:00:00+00", "{i1,i2,i3}", "{i3}"],
        ["s2", 8, "hat", "2025-03-01 10:01:00+00", "{i4,i5}", "{}"],
    )


def blanks_between_items(folder: Path) -> Path:
    return table(
        folder / "a.csv",
        "search_id,user_id,query,ts,results,clicked_item",
        ["s1", 7, "red shoe", T, "i1 i2 i3", "i3"],
        ["s2", 8, "hat", LATER, "i4 i5", ""],
    )


def counts_of_clicks(folder: Path) -> Path:
    rows = [
        [request, user, query, ts, item, 2 if item == "i3" else 0]
        for request, user, query, ts, items in TWO_PAGES
        for item in items.split()
    ]
    return table(folder / "a.csv", "search_id,user_id,query,ts,product_id,clicks", *rows)


def interactions_of_a_page(folder: Path) -> Path:
    rows = [
        {
            "request_id": request,
            "user_id": user,
            "query": query,
            "ts": ts,
            "results": items.split(),
            "interactions": [{"type": kind, "item_id": "i3", "ts": ts + 5000} for kind in kinds],
        }
        for (request, user, query, ts, items), kinds in zip(TWO_PAGES, (["hover", "click"], []), strict=True)
    ]
    return write_lines(folder / "a.jsonl", rows)


def names_that_are_not_listed(folder: Path) -> Path:
    rows = [
        [request, user, query, "2025/03/01 10:0" + ("0" if ts == T else "1") + ":00 +0000", item, int(item == "i3")]
        for request, user, query, ts, items in TWO_PAGES
        for item in items.split()
    ]
    return table(folder / "a.csv", "SEARCH_LOG_ID,SHOPPER_ID,SEARCHED_KEYWORDS,DATE_TIME,HOTEL_ID,CLICK_BOOL", *rows)


LAYOUTS: list[tuple[Callable[[Path], Path], list[Click]]] = [
    (json_in_cells, AT_PAGE),
    (bars_and_flags, AT_PAGE),
    (seconds_and_one_click, LATER_CLICK),
    (names_with_blanks, AT_PAGE),
    (parquet_lists, AT_PAGE),
    (parquet_objects, AT_PAGE),
    (objects_with_times_of_clicks, LATER_CLICK),
    (nested_objects, LATER_CLICK),
    (rows_with_flags, LATER_CLICK),
    (rows_with_the_clicked_item, AT_PAGE),
    (date_and_time, AT_PAGE),
    (times_of_bigquery, AT_PAGE),
    (click_position, AT_PAGE),
    (python_lists, AT_PAGE),
    (python_objects, AT_PAGE),
    (numpy_arrays, AT_PAGE),
    (postgresql_arrays, AT_PAGE),
    (blanks_between_items, AT_PAGE),
    (counts_of_clicks, AT_PAGE),
    (interactions_of_a_page, LATER_CLICK),
    (names_that_are_not_listed, AT_PAGE),
]


@pytest.mark.parametrize(("layout", "clicks"), LAYOUTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_draft_converts_the_log_it_was_made_from(
    tmp_path: Path, layout: Callable[[Path], Path], clicks: list[Click]
) -> None:
    pages, found, draft = drafted(tmp_path, layout(tmp_path))
    assert summary(pages) == TWO_PAGES, draft.text
    assert found == clicks, draft.text


@pytest.mark.parametrize("layout", [event_rows, event_rows_with_arrays, events_of_google_analytics, events_of_segment])
def test_rows_of_pages_and_of_clicks_are_separated_by_their_event(
    tmp_path: Path, layout: Callable[[Path], Path]
) -> None:
    pages, clicks, draft = drafted(tmp_path, layout(tmp_path))
    assert summary(pages) == TWO_PAGES, draft.text
    assert clicks == LATER_CLICK


def test_rows_of_clicks_without_a_type_are_those_without_items(tmp_path: Path) -> None:
    pages, clicks, draft = drafted(tmp_path, click_rows_without_a_type(tmp_path))
    assert summary(pages) == TWO_PAGES
    assert clicks == LATER_CLICK, draft.text


def test_clicks_in_a_file_of_their_own_are_drafted_with_the_pages(tmp_path: Path) -> None:
    pages = table(
        tmp_path / "pages.csv",
        "search_id,user_id,query,ts,results",
        ["s1", 7, "red shoe", T, "i1|i2|i3"],
        ["s2", 8, "hat", LATER, "i4|i5"],
    )
    clicks = table(tmp_path / "clicks.csv", "search_id,user_id,ts,item_id", ["s1", 7, T + 5000, "i3"])
    found, found_clicks, _ = drafted(tmp_path, pages, clicks)
    assert summary(found) == TWO_PAGES
    assert found_clicks == LATER_CLICK


def test_a_cell_of_clicks_may_hold_several_in_a_few_rows_only(tmp_path: Path) -> None:
    rows = [[f"s{n}", 7, "hat", T + n, "i1|i2|i3", {3: "i2|i3", 5: ""}.get(n, "i1")] for n in range(10)]
    path = table(tmp_path / "a.csv", "search_id,user_id,query,ts,results,clicked", *rows)
    _, clicks, draft = drafted(tmp_path, path)
    expected = [(f"s{n}", item) for n in range(10) for item in {3: ["i2", "i3"], 5: []}.get(n, ["i1"])]
    assert [(request, item) for request, _, item, _ in clicks] == expected, draft.text


def test_ids_that_a_data_frame_made_floats_are_those_of_the_items(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv",
        "search_id,user_id,query,ts,results,clicked_item",
        ["s1", 7, "hat", T, "1|2|3", "3.0"],
        ["s2", 7, "hat", T + 1, "1|2|3", ""],
    )
    _, clicks, _ = drafted(tmp_path, path)
    assert clicks == [("s1", "7", "3", T)]


@pytest.mark.parametrize("empty", ["", "[]"])
def test_a_sample_without_clicks_still_finds_their_column(tmp_path: Path, empty: str) -> None:
    rows = [[f"s{n}", 7, "hat", T + n, "i1|i2|i3", empty] for n in range(5)]
    draft = draft_mapping([table(tmp_path / "a.csv", "search_id,user_id,query,ts,results,clicked_item", *rows)])
    clicked = "i2" if not empty else '["i2"]'
    log = table(
        tmp_path / "b.csv", "search_id,user_id,query,ts,results,clicked_item", ["s1", 7, "hat", T, "i1|i2|i3", clicked]
    )
    events, _ = mapped(tmp_path, draft.text, log)
    assert clicks_of(events) == [("s1", "7", "i2", T)]


def test_identifiers_of_clicks_are_no_items(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv",
        "search_id,user_id,query,ts,results,click_id",
        ["s1", 7, "hat", T, "i1|i2|i3", "0f3c"],
        ["s2", 7, "hat", T + 1, "i1|i2|i3", "77aa"],
    )
    pages, clicks, draft = drafted(tmp_path, path)
    assert (len(pages), clicks) == (2, [])
    assert any("no column looks like clicks" in each for each in draft.unsure)


def test_a_catalogue_and_parallel_lists_fill_the_fields_of_items(tmp_path: Path) -> None:
    catalogue = write_lines(
        tmp_path / "items.jsonl",
        [
            {"sku": "i1", "productName": "Shoe", "brand": "acme", "genres": ["x", "y"]},
            {"sku": "i2", "productName": "Hat"},
        ],
    )
    path = table(
        tmp_path / "a.csv",
        "search_id,user_id,query,ts,items,prices,clicked",
        ["s1", 7, "hat", T, "i1|i2", "9.5|3", "i2"],
    )
    [page], _, _ = drafted(tmp_path, path, catalogue=catalogue)
    assert page["items"] == [
        {"item_id": "i1", "price": 9.5, "title": "Shoe", "category": "x", "brand": "acme"},
        {"item_id": "i2", "price": 3.0, "title": "Hat"},
    ]


def test_positions_and_grades_from_0_and_prices_in_cents_become_those_of_events(tmp_path: Path) -> None:
    rows = [["s1", 7, "hat", T, f"i{n}", n, n % 4, 950, n == 2] for n in (2, 0, 1, 3)]
    path = table(tmp_path / "a.csv", "search_id,user_id,query,ts,item_id,position,grade,price_cents,clicked", *rows)
    [page], clicks, draft = drafted(tmp_path, path)
    assert page["items"] == [
        {"item_id": f"i{n}", "position": n + 1, "relevance": n % 4 + 1, "price": 9.5} for n in range(4)
    ]
    assert clicks == [("s1", "7", "i2", T)]
    assert any("grade counts from 0" in each for each in draft.unsure)


def test_lists_that_are_no_items_are_not_taken_for_them(tmp_path: Path) -> None:
    rows = [["s1", 7, "hat", T, item, "clothes|hats", int(item == "i2")] for item in ("i1", "i2")]
    path = table(tmp_path / "a.csv", "search_id,user_id,query,ts,product_id,category,clicked", *rows)
    [page], clicks, _ = drafted(tmp_path, path)
    assert [item["item_id"] for item in page["items"]] == ["i1", "i2"]
    assert clicks == [("s1", "7", "i2", T)]


def test_ids_with_separators_are_ids(tmp_path: Path) -> None:
    rows = [["a;1", "auth0|7", "hat,red", T, item, int(item == "shop|2")] for item in ("shop|1", "shop|2")]
    path = table(tmp_path / "a.csv", "search_id,user_id,query,ts,product_id,clicked", *rows)
    [page], clicks, _ = drafted(tmp_path, path)
    assert summary([page]) == [("a;1", "auth0|7", "hat,red", T, "shop|1 shop|2")]
    assert clicks == [("a;1", "auth0|7", "shop|2", T)]


def test_pages_of_mostly_one_item_are_lists_all_the_same(tmp_path: Path) -> None:
    rows = [[f"s{n}", 7, "hat", T + n, "i1|i2" if n == 4 else "i1", "i1"] for n in range(9)]
    pages, clicks, _ = drafted(tmp_path, table(tmp_path / "a.csv", "search_id,user_id,query,ts,items,clicked", *rows))
    assert [len(page["items"]) for page in pages] == [1, 1, 1, 1, 2, 1, 1, 1, 1]
    assert len(clicks) == 9


def test_without_a_query_a_user_or_a_request_the_draft_says_what_it_assumes(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "ts,results,clicked", [T, "i1|i2", "i2"], [T + 9, "i1|i2", ""])
    pages, clicks, draft = drafted(tmp_path, path)
    assert [(page["user_id"], page["query"]) for page in pages] == [("everyone", "")] * 2
    assert len({page["request_id"] for page in pages}) == 2
    assert [(request, item) for request, _, item, _ in clicks] == [(pages[0]["request_id"], "i2")]
    assert len(draft.unsure) == 3
    assert all(f"# LOOK: {each}" in draft.text for each in draft.unsure)


def test_a_session_alone_identifies_the_visitor(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "session_id,query,ts,results,clicked", ["v", "hat", T, "i1|i2", "i2"])
    [page], clicks, _ = drafted(tmp_path, path)
    assert ("user_id" in page, page["session_id"]) == (False, "v")
    assert clicks == [(page["request_id"], "v", "i2", T)]


@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("ubi", {"action_name": "impression", "query_id": "q", "client_id": "c", "timestamp": T, "object_id": "i1"}),
        ("metarank", {"event": "item", "item": "i1", "timestamp": T, "fields": []}),
    ],
)
def test_logs_of_known_systems_are_recognised(tmp_path: Path, source: str, row: dict[str, Any]) -> None:
    draft = draft_mapping([write_lines(tmp_path / "a.jsonl", [row])])
    assert f"# LOOK: it looks like a log of {source}: `prectr convert {source}` needs no mapping" in draft.text


def test_times_without_a_zone_are_noted(tmp_path: Path) -> None:
    draft = draft_mapping([names_with_blanks(tmp_path)])
    assert draft.unsure == ["times have no zone; UTC is assumed"]
    assert '[time]\nzone = "UTC"' in draft.text


def test_columns_whose_names_say_nothing_are_recognised_by_their_values(tmp_path: Path) -> None:
    """As of a shop whose language is not English: time, query, items and clicked item have no known name."""
    path = table(
        tmp_path / "a.csv",
        "session,nr,suche,zeit,artikel,gewählt",
        ["s1", 5, "roter schuh", T // 1000, "7|9|8", "9"],
        ["s2", 6, "hut", T // 1000 + 60, "4|7", ""],
    )
    [first, second], [click], draft = drafted(tmp_path, path)
    assert (first["query"], first["ts"], second["query"]) == ("roter schuh", T // 1000 * 1000, "hut")
    assert [item["item_id"] for item in first["items"]] == ["7", "9", "8"]
    assert {first["request_id"], "9"} <= set(click)
    assert [each.split(" is taken as ")[0] for each in draft.unsure if "its name says nothing" in each] == [
        "zeit",
        "suche",
        '"gewählt"',
    ]


def test_names_of_columns_can_be_anything(tmp_path: Path) -> None:
    name = 'item "ids"\n[x]\\\x7f'
    path = table(
        tmp_path / "a.csv",
        "search_id,user_id,query,ts,größe 😀\nx = 1",
        ["s1", 7, "hat", T, "b"],
    )
    content = path.read_text().replace("ts,", 'ts,"' + name.replace('"', '""') + '",').replace(f"{T},", f"{T},i1|i2,")
    path.write_text(content)
    [page], _, draft = drafted(tmp_path, path)
    assert [item["item_id"] for item in page["items"]] == ["i1", "i2"]
    assert '# Columns not used: "größe 😀\\nx = 1"' in draft.text


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("search_id,user_id,items", ["s1", "7", "a|b"], "no column looks like a time, among search_id, user_id, items"),
        ("search_id,ts,items", ["s1", "01/02/2025 10:00", "a|b"], "ts is '01/02/2025 10:00', neither a number nor ISO"),
        ("search_id,user_id,ts", ["s1", "7", T], "no column looks like the items of a page"),
    ],
)
def test_a_log_without_times_or_items_is_rejected(tmp_path: Path, header: str, row: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draft_mapping([table(tmp_path / "a.csv", header, row)])


def test_a_file_without_rows_or_a_catalogue_without_ids_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row that can be read"):
        draft_mapping([table(tmp_path / "a.csv", "search_id,ts")])
    catalogue = table(tmp_path / "items.csv", "colour,size", ["red", "L"])
    with pytest.raises(InputError, match=r"items\.csv: no column looks like an item's id"):
        draft_mapping([json_in_cells(tmp_path)], catalogue)
