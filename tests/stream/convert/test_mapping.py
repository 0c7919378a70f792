"""Promises of mappings: each layout of a log to the events that a person would write by hand."""

import json
from pathlib import Path
from typing import Any

import jmespath
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prectr.state.errors import ConfigError, InputError
from prectr.stream.convert.mapping import Expression, load_mapping
from tests.stream.convert.conversion import T, clicks_of, mapped, pages_of, skipped, write_lines

HEAD = 'request_id = "sid"\nuser_id = "uid"\nquery = "q"\nts = "ts"\n'
"""Fields of a page; those of a click are the same without the query."""
CLICK_HEAD = 'request_id = "sid"\nuser_id = "uid"\nts = "ts"\n'
IN_ROW = 'request_id = "row.sid"\nuser_id = "row.uid"\nts = "row.ts"\n'
ROW: dict[str, Any] = {"sid": 1, "uid": "u", "q": "red shoe", "ts": T}
PAGE = {"type": "impression", "request_id": "1", "user_id": "u", "query": "red shoe", "ts": T}


def page_mapping(items: str, head: str = HEAD) -> str:
    return f"[page]\n{head}\n[page.items]\n{items}\n"


ARRAY = page_mapping('each = "items"\nitem_id = "item"')


def test_an_array_of_objects_is_a_page_with_its_clicks(tmp_path: Path) -> None:
    items = [{"sku": 7, "name": "a", "cents": 950, "clicked": 0}, {"sku": "b", "clicked": 1, "at": T + 5}]
    rows = write_lines(tmp_path / "a.jsonl", [{**ROW, "items": items}])
    mapping = page_mapping(
        'each = "items"\nitem_id = "item.sku"\ntitle = "item.name"\nprice = "times(item.cents, `0.01`)"'
    )
    head = IN_ROW.replace("row.ts", "item.at || row.ts")
    clicks = f'[[click]]\n{head}each = "items"\nwhen = "item.clicked"\nitem_id = "item.sku"'
    events, report = mapped(tmp_path, mapping + clicks, rows)
    assert events == [
        {**PAGE, "items": [{"item_id": "7", "title": "a", "price": 9.5}, {"item_id": "b"}]},
        {"type": "click", "request_id": "1", "user_id": "u", "item_id": "b", "ts": T + 5},
    ]
    assert (report.rows, report.pages, report.impressions, report.clicks, report.skipped) == (1, 1, 2, 1, {})


def test_parallel_arrays_belong_together_by_position(tmp_path: Path) -> None:
    row = {**ROW, "ids": ["a", "b", "c"], "names": ["A", None], "prices": [1, "2.5", "x"], "clicks": [0, 1, 1]}
    rows = write_lines(tmp_path / "a.jsonl", [{**row, "times": [None, T + 1, T + 2]}])
    mapping = page_mapping(
        'each = "ids"\nitem_id = "item"\ntitle = "at(row.names, index)"\nprice = "at(row.prices, index)"'
    )
    head = IN_ROW.replace("row.ts", "at(row.times, index)")
    clicks = f'[[click]]\n{head}each = "ids"\nwhen = "at(row.clicks, index)"\nitem_id = "item"'
    events, report = mapped(tmp_path, mapping + clicks, rows)
    assert events[0]["items"] == [
        {"item_id": "a", "title": "A", "price": 1.0},
        {"item_id": "b", "price": 2.5},
        {"item_id": "c"},
    ]
    assert clicks_of(events) == [("1", "u", "b", T + 1), ("1", "u", "c", T + 2)]
    assert skipped(report) == {"invalid_price": 1}


@pytest.mark.parametrize(
    ("cell", "clicked", "items", "clicks"),
    [
        ("a|b |c", "b", "split(items, '|')", "split(clicked, '|')"),
        ("a|b|c", "b | c", "split(items, '|')", "split(clicked, '|')"),
        ('["a", "b", "c"]', '["b"]', "parse_json(items)", "parse_json(clicked)"),
    ],
)
def test_texts_in_cells_are_split_or_parsed(tmp_path: Path, cell: str, clicked: str, items: str, clicks: str) -> None:
    path = tmp_path / "a.csv"
    quoted = [each.replace('"', '""') for each in (cell, clicked)]
    path.write_text(
        f'sid,uid,q,ts,items,clicked\n1,u,red shoe,{T},"{quoted[0]}","{quoted[1]}"\n2,u,x,{T},"{quoted[0]}",\n'
    )
    mapping = page_mapping(f'each = "{items}"\nitem_id = "item"')
    events, report = mapped(tmp_path, f'{mapping}[[click]]\n{IN_ROW}each = "{clicks}"\nitem_id = "item"', path)
    pages = pages_of(events)
    assert pages[0] == {**PAGE, "items": [{"item_id": "a"}, {"item_id": "b"}, {"item_id": "c"}]}
    expected = ["b", "c"] if "c" in clicked else ["b"]
    assert clicks_of(events) == [("1", "u", item, T) for item in expected]
    assert report.skipped == {}


def test_rows_of_one_item_are_collected_into_pages_in_any_order(tmp_path: Path) -> None:
    def row(page: int, user: str, item: str, position: int, clicked: int, ts: int) -> dict[str, Any]:
        return {"sid": page, "uid": user, "q": "x", "ts": ts, "item": item, "pos": position, "clicked": clicked}

    rows = [
        row(2, "u", "c", 1, 0, T + 9),
        row(1, "u", "b", 2, 1, T + 3),
        row(1, "v", "z", 1, 0, T + 1),
        row(1, "u", "a", 1, 0, T + 2),
        row(1, "u", "b", 2, 1, T + 3),
    ]
    mapping = page_mapping('item_id = "item.item"\nposition = "item.pos"')
    clicks = f'[[click]]\n{CLICK_HEAD}when = "clicked"\nitem_id = "item"'
    first = write_lines(tmp_path / "a.jsonl", rows[:2])
    second = write_lines(tmp_path / "b.jsonl", rows[2:])
    events, report = mapped(tmp_path, mapping + clicks, first, second)
    found = [
        (
            page["request_id"],
            page["user_id"],
            page["ts"],
            [(item["item_id"], item["position"]) for item in page["items"]],
        )
        for page in pages_of(events)
    ]
    assert found == [
        ("1", "v", T + 1, [("z", 1)]),
        ("1", "u", T + 2, [("a", 1), ("b", 2)]),
        ("2", "u", T + 9, [("c", 1)]),
    ]
    # The row that comes twice is no second item; its click is a duplicate for the join.
    assert skipped(report) == {"repeated_item": 1}
    assert clicks_of(events) == [("1", "u", "b", T + 3)] * 2
    assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)


def test_a_page_of_millions_of_rows_is_left_out_in_bounded_memory(tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "a.jsonl", [{**ROW, "item": number} for number in range(1000)])
    events, report = mapped(tmp_path, page_mapping('item_id = "item.item"'), rows)
    assert events == []
    assert report.skipped["too_many_items"].detail == "1000 items, of at most 200"


def test_pages_and_clicks_may_be_rows_of_one_file_or_of_several(tmp_path: Path) -> None:
    page = {**ROW, "type": "search", "items": ["a", "b"]}
    click = {"type": "click", "sid": 1, "uid": "u", "ts": T + 7, "item": "b"}
    other = {"type": "scroll", "sid": 1, "uid": "u", "ts": T + 3}
    mapping = page_mapping('each = "items"\nitem_id = "item"', HEAD + "when = \"type == 'search'\"\n")
    mapping += f'[[click]]\n{CLICK_HEAD}when = "type == \'click\'"\nitem_id = "item"\naction = "\'click\'"'
    together = write_lines(tmp_path / "all.jsonl", [click, other, page])
    apart = [write_lines(tmp_path / f"{number}.jsonl", [row]) for number, row in enumerate([click, other, page])]
    for inputs in ([together], apart):
        events, report = mapped(tmp_path, mapping, *inputs)
        assert events == [
            {**PAGE, "items": [{"item_id": "a"}, {"item_id": "b"}]},
            {"type": "click", "request_id": "1", "user_id": "u", "item_id": "b", "ts": T + 7, "action": "click"},
        ]
        assert skipped(report) == {"no_section_applies": 1}


def test_a_catalogue_adds_fields_and_items_without_one_are_counted(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("sku;name;price;brand\n1;old;3;x\n1;shoe;9.5;acme\n;none;1;\n2;hat;oops;\n")
    rows = write_lines(tmp_path / "a.jsonl", [{**ROW, "items": [1.0, "2", 3]}])
    mapping = page_mapping(
        'each = "items"\nitem_id = "item"\ntitle = "catalogue.name"\n'
        'price = "catalogue.price"\nbrand = "catalogue.brand"'
    )
    events, report = mapped(tmp_path, f'{mapping}[catalogue]\nfile = "items.csv"\nkey = "sku"', rows)
    assert events[0]["items"] == [
        {"item_id": "1", "title": "shoe", "price": 9.5, "brand": "acme"},
        {"item_id": "2", "title": "hat"},
        {"item_id": "3"},
    ]
    assert skipped(report) == {"catalogue_missing_key": 1, "invalid_price": 1, "item_not_in_catalogue": 1}


def test_constants_features_context_and_sessions(tmp_path: Path) -> None:
    items = [{"id": "a", "bm25": 1.5, "stock": True, "note": None}]
    rows = write_lines(
        tmp_path / "a.jsonl", [{**ROW, "uid": None, "visit": 5, "device": "phone", "n": 3, "items": items}]
    )
    mapping = """
        [page]
        request_id = "sid"
        user_id = "uid"
        session_id = "visit"
        query = "'everything'"
        ts = "ts"
        [page.context]
        device = "device"
        [page.features]
        results = "n"
        [page.items]
        each = "items"
        item_id = "item.id"
        relevance = "`3`"
        category = "'film'"
        [page.items.features]
        bm25 = "item.bm25"
        stock = "item.stock"
        note = "item.note"
    """
    events, _ = mapped(tmp_path, mapping, rows)
    assert events == [
        {
            **{name: value for name, value in PAGE.items() if name != "user_id"},
            "session_id": "5",
            "query": "everything",
            "context": {"device": "phone"},
            "features": {"results": 3.0},
            "items": [{"item_id": "a", "relevance": 3, "category": "film", "features": {"bm25": 1.5, "stock": 1.0}}],
        }
    ]


def test_parquet_lists_are_pages(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("id", pa.int64()), ("clicked", pa.bool_())]))
    table = pa.table(
        {
            "sid": [1],
            "uid": ["u"],
            "q": ["red shoe"],
            "ts": pa.array([T * 1_000_000], pa.timestamp("ns")),
            "items": pa.array([[{"id": 1, "clicked": False}, {"id": 2, "clicked": True}]], kind),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    mapping = '[time]\nzone = "UTC"\n' + page_mapping('each = "items"\nitem_id = "item.id"')
    clicks = f'[[click]]\n{IN_ROW}each = "items"\nwhen = "item.clicked"\nitem_id = "item.id"'
    events, _ = mapped(tmp_path, mapping + clicks, tmp_path / "a.parquet")
    assert events[0] == {**PAGE, "items": [{"item_id": "1"}, {"item_id": "2"}]}
    assert clicks_of(events) == [("1", "u", "2", T)]


def test_units_and_zones_of_time_are_set_once(tmp_path: Path) -> None:
    rows = write_lines(
        tmp_path / "a.jsonl", [{**ROW, "ts": T // 1000, "items": ["a"]}, {**ROW, "ts": T, "items": ["a"]}]
    )
    events, report = mapped(tmp_path, '[time]\nunit = "s"\n' + ARRAY, rows)
    assert [event["ts"] for event in events] == [T]
    assert skipped(report) == {"implausible_time": 1}
    rows = write_lines(tmp_path / "a.jsonl", [{**ROW, "ts": "2025-03-01 11:00:00", "items": ["a"]}])
    events, report = mapped(tmp_path, ARRAY, rows)
    assert (events, skipped(report)) == ([], {"time_without_zone": 1})
    events, _ = mapped(tmp_path, '[time]\nzone = "Europe/Berlin"\n' + ARRAY, rows)
    assert [event["ts"] for event in events] == [T]


def test_rows_that_cannot_be_mapped_are_counted_by_reason_with_a_place(tmp_path: Path) -> None:
    good = {**ROW, "items": ["a"]}
    rows = [
        good,
        {**good, "uid": None},
        {**good, "sid": ""},
        {**good, "ts": "soon"},
        {**good, "items": "a,b"},
        {**good, "items": []},
        {**good, "items": None},
        {**good, "items": ["a", None]},
        {**good, "items": list(range(201))},
        {**good, "q": {"text": "x"}},
        {**good, "uid": "x" * 300},
        {**good, "items": [1.5]},
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    events, report = mapped(tmp_path, ARRAY, path)
    assert len(events) == 1
    assert report.rows == 12
    assert report.empty_pages == 2
    assert skipped(report) == {
        "missing_user_id": 1,
        "missing_request_id": 1,
        "invalid_time": 1,
        "items_not_an_array": 1,
        "missing_item_id": 1,
        "too_many_items": 1,
        "invalid_query": 1,
        "invalid_field": 1,
        "invalid_item_id": 1,
    }
    assert report.skipped["invalid_time"].place == f"{path} line 4"
    assert "'soon'" in report.skipped["invalid_time"].detail


@pytest.mark.parametrize(
    "expression",
    [
        "join('-', q)",
        "contains(q, `1`)",
        "sum(items)",
        "parse_json(q)",
        "times(q, `2`)",
        "split(q, '')",
        "at(q, `0`)",
        "abs(q)",
        "sort_by(items, &x)",
        "parse_json(deep)",
    ],
)
def test_a_function_that_does_not_fit_costs_its_row_and_is_named(tmp_path: Path, expression: str) -> None:
    deep = "[" * 100_000
    rows = write_lines(tmp_path / "a.jsonl", [{**ROW, "items": ["a"], "deep": deep}])
    mapping = ARRAY.replace('query = "q"', f'query = "{expression}"')
    events, report = mapped(tmp_path, mapping, rows)
    assert events == []
    assert skipped(report) == {"expression_failed": 1}
    assert "page.query" in report.skipped["expression_failed"].detail


def test_functions_of_missing_values_give_none(tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "a.jsonl", [{**ROW, "items": ["a"]}])
    for expression in (
        "split(none, '|') | [0]",
        "parse_json(none)",
        "times(none, `2`)",
        "at(none, `0`)",
        "at(items, `7`)",
    ):
        events, report = mapped(tmp_path, ARRAY.replace('query = "q"', f'query = "{expression}"'), rows)
        assert [event["query"] for event in events] == [""], expression
        assert report.skipped == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither .page. nor"),
        ("[page", r"mapping\.toml: Expected"),
        (ARRAY.replace("query", "qeury"), "qeury"),
        (ARRAY.replace('item_id = "item"', ""), "item_id"),
        (ARRAY.replace('user_id = "uid"\n', ""), r"\[page\] needs user_id or session_id"),
        ("[time]\nunit = 'hours'\n" + ARRAY, r"time\.unit"),
        ("[time]\nzone = 'Mars/Olympus'\n" + ARRAY, "Mars/Olympus"),
        ("[input]\nformat = 'xml'\n" + ARRAY, r"input\.format"),
        ("[input]\ndelimiter = '||'\n" + ARRAY, r"input\.delimiter"),
        ("[input]\ndelimiter = '\"'\n" + ARRAY, r"input\.delimiter"),
        (ARRAY.replace('"items"', '"items["'), r"page\.items\.each = 'items\['"),
        (ARRAY.replace('"q"', '"lower(q)"'), "there is no function 'lower'"),
        (ARRAY.replace('"q"', '"items[*].[x, upper(y)]"'), "there is no function 'upper'"),
        (f'{ARRAY}[[click]]\n{CLICK_HEAD}item_id = "a b"', r"click\[0\]\.item_id"),
    ],
)
def test_a_wrong_mapping_is_one_error_that_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    rows = write_lines(tmp_path / "a.jsonl", [{**ROW, "items": ["a"]}])
    with pytest.raises(ConfigError, match=message):
        mapped(tmp_path, text, rows)


def test_a_mapping_or_catalogue_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        load_mapping(tmp_path / "none.toml")
    rows = write_lines(tmp_path / "a.jsonl", [{**ROW, "items": ["a"]}])
    with pytest.raises(InputError, match=r"none\.csv does not exist"):
        mapped(tmp_path, f'{ARRAY}[catalogue]\nfile = "none.csv"\nkey = "sku"', rows)


def test_a_failing_key_of_a_catalogue_is_counted(tmp_path: Path) -> None:
    (tmp_path / "items.json").write_text(json.dumps([{"sku": [1]}, {"sku": "a"}]))
    rows = write_lines(tmp_path / "a.jsonl", [{**ROW, "items": ["a"]}])
    events, report = mapped(tmp_path, f'{ARRAY}[catalogue]\nfile = "items.json"\nkey = "split(sku, \'|\') | [0]"', rows)
    assert len(events) == 1
    assert skipped(report) == {"catalogue_expression_failed": 1}


@pytest.mark.parametrize(
    "row", [{"a": {"b c": {"d": 1}}, "b c": 2}, {"a": 3}, {"a": None}, {}, {"a": [{"b c": 1}]}, [1], None]
)
@pytest.mark.parametrize(
    "expression", ["a", "a.b", 'a."b c".d', '"b c"', 'a.["b c"]', "a[0]", "a[0].d", "@", "a || `7`"]
)
def test_expressions_have_the_values_of_jmespath(row: Any, expression: str) -> None:
    assert Expression("page.query", expression)(row) == jmespath.search(expression, row)
