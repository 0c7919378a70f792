"""Promises of drafts: for each layout of a log, the drafted mapping converts it to the events that are meant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prectr.state.errors import InputError
from prectr.stream.convert.draft.mapping_draft import Draft, draft_mapping
from tests.stream.convert.conversion import Event, T, clicks_of, mapped, pages_of, write_lines
from tests.stream.convert.draft.layouts import (
    LATER,
    LATER_CLICK,
    LAYOUTS,
    TWO_PAGES,
    Click,
    click_rows_without_a_type,
    event_rows,
    event_rows_with_arrays,
    events_of_google_analytics,
    events_of_segment,
    json_in_cells,
    names_with_blanks,
    table,
)


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
