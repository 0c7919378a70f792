"""Layouts of logs that teams export, each with the same two searches.

"red shoe" of user 7 shows i1, i2, i3, and i3 is clicked, 5 s later if there are times of clicks; "hat" of user 8 a
minute later shows i4, i5 without a click.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.stream.convert.conversion import T, write_lines

LATER = T + 60_000
Click = tuple[str, str, str, int]


def table(path: Path, header: str, *rows: list[Any], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([header.split(","), *rows])
    return path


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
