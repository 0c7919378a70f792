"""Decoding: an event or an InvalidEvent for every line, in order, whatever the bytes."""

import json
import random
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prectr.stream.events.contract import (
    MAX_EVENT_BYTES,
    MAX_ID_BYTES,
    Click,
    Event,
    InvalidEvent,
    Item,
    ResultPage,
)
from prectr.stream.events.decode import Reason, decode_lines
from prectr.stream.events.event_time import MAX_TS, MIN_TS
from prectr.stream.events.nesting import MAX_DEPTH

PAGE: dict[str, Any] = {
    "type": "impression",
    "request_id": "r1",
    "user_id": "u1",
    "query": "red shoes",
    "ts": 1_700_000_000_000,
    "items": [
        {"item_id": "a", "title": "Red shoe", "relevance": 3, "price": 12.5, "category": "shoes", "brand": "acme"},
        {"item_id": "b", "position": 7},
        {"item_id": "c"},
    ],
    "context": {"device": "phone"},
}
CLICK: dict[str, Any] = {"type": "click", "request_id": "r1", "user_id": "u1", "item_id": "a", "ts": 1_700_000_000_001}


def one(line: bytes | str | dict[str, Any]) -> Event | InvalidEvent:
    if isinstance(line, dict):
        line = json.dumps(line)
    (event,) = decode_lines([line if isinstance(line, bytes) else line.encode("utf-8", "surrogatepass")])
    return event


def decode_error(line: bytes | str | dict[str, Any]) -> tuple[str, str, str | None]:
    event = one(line)
    assert isinstance(event, InvalidEvent), event
    assert event.detail
    assert event.reason in Reason.__args__
    return event.reason, event.kind, event.user_id


def item(**fields: Any) -> dict[str, Any]:
    return {**PAGE, "items": [{"item_id": "a", **fields}]}


def test_a_page_is_decoded_and_positions_default_to_the_list_order() -> None:
    assert one(PAGE) == ResultPage(
        "r1",
        "u1",
        "red shoes",
        1_700_000_000_000,
        [
            Item("a", "Red shoe", 3, 12.5, "shoes", "acme", 1),
            Item("b", position=7),
            Item("c", position=3),
        ],
        {"device": "phone"},
    )


def test_a_click_is_read() -> None:
    assert one(CLICK) == Click("r1", "u1", "a", 1_700_000_000_001)


def test_order_is_kept_and_each_line_has_its_result() -> None:
    lines = [json.dumps(CLICK).encode(), b"no", json.dumps(PAGE).encode(), b"", json.dumps(CLICK).encode()]
    assert [type(event) for event in decode_lines(lines)] == [Click, InvalidEvent, ResultPage, InvalidEvent, Click]
    assert decode_lines([]) == []


def test_unknown_fields_are_ignored_and_white_space_is_free() -> None:
    assert one(b' {"x":[{"y":null}],' + json.dumps(CLICK, indent=1).encode()[1:] + b" \r") == one(CLICK)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", ("blank", "unreadable", None)),
        (b" \t\r", ("blank", "unreadable", None)),
        (b"\x00", ("not_json", "unreadable", None)),
        (b"nonsense", ("not_json", "unreadable", None)),
        (b'{"type":"click"', ("not_json", "unreadable", None)),
        (b'{"type":"click"} {}', ("not_json", "unreadable", None)),
        (b"\xff\xfe{\x00}\x00", ("not_utf8", "unreadable", None)),
        (b"[]", ("unknown_type", "unreadable", None)),
        (b"17", ("unknown_type", "unreadable", None)),
        (b"null", ("unknown_type", "unreadable", None)),
        (b"{}", ("unknown_type", "unreadable", None)),
        (b'{"type":7,"user_id":"u"}', ("unknown_type", "unreadable", "u")),
        (b'{"type":"Click","user_id":"u"}', ("unknown_type", "unreadable", "u")),
        (b'{"type":"purchase","user_id":7}', ("unknown_type", "unreadable", "7")),
        (b'{"type":"purchase","session_id":"s"}', ("unknown_type", "unreadable", "s")),
        (b'{"type":"click"}', ("missing_field", "click", None)),
        (b'{"type":"impression","user_id":"u"}', ("missing_field", "impression", "u")),
        (b'{"type":"cl\\u0069ck","user_id":"u"}', ("missing_field", "click", "u")),
    ],
)
def test_bytes_that_are_no_event_say_why_and_what_they_are(line: bytes, expected: tuple[str, str, str | None]) -> None:
    assert decode_error(line) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"request_id": ""},
        {"request_id": None},
        {"request_id": 17.5},
        {"user_id": "u" * 257},
        {"query": 7},
        {"query": "q" * 2001},
        {"ts": 1_700_000_000_000.5},
        {"ts": "1700000000000"},
        {"ts": True},
        {"items": {}},
        {"items": None},
        {"items": [17]},
        {"items": [{}]},
        {"items": [{"item_id": "a"}] * 201},
        {"items": [{"item_id": "a"}] * 10_000},
        {"context": []},
        {"context": {"a": 1}},
        {"context": {"a": {"b": "c"}}},
        {"context": {"a": "b" * 257}},
    ],
)
def test_a_page_outside_the_contract_is_an_invalid_event(wrong: dict[str, Any]) -> None:
    reason, kind, user_id = decode_error({**PAGE, **wrong})
    assert kind == "impression"
    assert reason == ("missing_field" if wrong.get("items") == [{}] else "invalid_field")
    assert user_id == wrong.get("user_id", "u1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"item_id": ""},
        {"item_id": 7.5},
        {"title": "t" * 2001},
        {"title": 7},
        {"relevance": 0},
        {"relevance": 5},
        {"relevance": 2.5},
        {"relevance": "3"},
        {"price": "12"},
        {"price": True},
        {"price": 10**400},
        {"category": 3},
        {"brand": []},
        {"position": 0},
        {"position": -3},
        {"position": 10**30},
    ],
)
def test_an_item_outside_the_contract_rejects_its_page(wrong: dict[str, Any]) -> None:
    assert decode_error(item(**wrong)) == ("invalid_field", "impression", "u1")


def test_200_items_the_longest_texts_and_the_last_millisecond_are_accepted() -> None:
    page = {
        **PAGE,
        "request_id": "r" * MAX_ID_BYTES,
        "query": "é" * 2000,
        "ts": MAX_TS,
        "items": [{"item_id": f"i{n}", "title": "ü" * 2000, "price": 0} for n in range(200)],
    }
    event = one(json.dumps(page, ensure_ascii=False))
    assert isinstance(event, ResultPage)
    assert [entry.position for entry in event.items] == list(range(1, 201))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "nan", "01", "1.", "+1", "0x10"])
def test_numbers_that_are_not_json_make_a_line_unreadable(number: str) -> None:
    line = json.dumps(item(price=0.125)).replace("0.125", number)
    assert decode_error(line) == ("not_json", "unreadable", None)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e999999999", "9" * 5000])
def test_numbers_beyond_float64_are_an_invalid_field(number: str) -> None:
    line = json.dumps(item(price=0.125)).replace("0.125", number)
    assert decode_error(line) == ("invalid_field", "impression", "u1")


@pytest.mark.parametrize("number", [0.1, -0.0, 5e-324, 1.7976931348623157e308, 17, -3])
def test_prices_keep_their_value(number: float) -> None:
    event = one(item(price=number))
    assert isinstance(event, ResultPage)
    assert repr(event.items[0].price) == repr(float(number))


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("field", ["request_id", "user_id", "item_id"])
@pytest.mark.parametrize(("character", "size"), [("é", 2), ("€", 3), ("😀", 4), ("\u0000", 1), ("\n", 1)])
def test_ids_are_at_most_256_bytes_of_utf8(field: str, character: str, size: int, escaped: bool) -> None:
    fits = character * (MAX_ID_BYTES // size)
    for text, good in ((fits, True), (fits + "xx", False)):
        for event in (CLICK, {**PAGE, "items": [{"item_id": "a"}, {"item_id": text}]}):
            wrong = event if field == "item_id" and event is not CLICK else {**event, field: text}
            got = one(json.dumps(wrong, ensure_ascii=escaped))
            assert isinstance(got, InvalidEvent) is not good
            if isinstance(got, InvalidEvent):
                assert (got.reason, got.kind) == ("invalid_field", event["type"])


def test_ids_keep_newlines_nuls_and_every_character() -> None:
    text = "a\nb\x00c\u2028\U0010ffffé\t\x7f"
    for escaped in (True, False):
        event = one(json.dumps({**CLICK, "user_id": text}, ensure_ascii=escaped))
        assert isinstance(event, Click)
        assert event.user_id == text


@pytest.mark.parametrize("where", ["request_id", "unknown"])
def test_bytes_that_are_not_utf8_are_rejected_wherever_they_are(where: str) -> None:
    line = json.dumps({**CLICK, where: "§"}, ensure_ascii=False).encode().replace("§".encode(), b"\xc3\x28")
    assert decode_error(line) == ("not_utf8", "unreadable", None)
    surrogate = json.dumps({**CLICK, where: "§"}, ensure_ascii=False).replace("§", "\ud800")
    assert decode_error(surrogate) == ("not_utf8", "unreadable", None)


def test_a_lone_surrogate_makes_no_id() -> None:
    reason, kind, _ = decode_error(json.dumps(CLICK).replace('"r1"', '"\\ud800"'))
    assert (reason, kind) in {("invalid_field", "click"), ("not_json", "unreadable")}


def test_an_event_of_more_than_1_mib_is_too_large_whatever_it_is() -> None:
    line = json.dumps(CLICK).encode()
    padded = line[:-1] + b" " * (MAX_EVENT_BYTES - len(line)) + b"}"
    assert isinstance(one(padded), Click)
    assert decode_error(padded + b" ") == ("too_large", "unreadable", None)
    assert decode_error(b"\x00" * (MAX_EVENT_BYTES + 1)) == ("too_large", "unreadable", None)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_is_judged_alike_whatever_stack_there_is(opening: str) -> None:
    closing = "]" if opening == "[" else "}"

    def nested(depth: int) -> bytes:
        inside = opening * (depth - 1) + "7" * (opening != "[") + closing * (depth - 1)
        return json.dumps({**CLICK, "x": "§", "s": '[[["\\'}).replace('"\\u00a7"', inside).encode()

    def judged(line: bytes, frames: int) -> str:
        if frames:
            return judged(line, frames - 1)
        (event,) = decode_lines([line])
        return event.reason if isinstance(event, InvalidEvent) else type(event).__name__

    before = sys.getrecursionlimit()
    try:
        # Another thread, or a library, may have raised the limit.
        for limit in (1000, 10_000):
            sys.setrecursionlimit(limit)
            for frames in (0, 300, 700):
                assert judged(nested(20), frames) == "Click"
                assert judged(nested(MAX_DEPTH), frames) == "Click"
                assert judged(nested(MAX_DEPTH + 1), frames) == "too_deep"
                assert judged(nested(150_000), frames) == "too_deep"
            assert sys.getrecursionlimit() == limit
    finally:
        sys.setrecursionlimit(before)


def test_an_interpreter_that_allows_less_depth_rejects_what_it_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_stack(line: bytes) -> Event:
        raise RecursionError

    monkeypatch.setattr("prectr.stream.events.decode._decode_event", out_of_stack)
    assert decode_error(CLICK) == ("too_deep", "unreadable", None)


def test_brackets_in_a_row_or_within_texts_are_no_nesting() -> None:
    many = json.dumps({**CLICK, "x": [[]] * 2 * MAX_DEPTH, "s": "[{" * MAX_DEPTH + '"', "t": "[" * 2 * MAX_DEPTH})
    assert isinstance(one(many.encode()), Click)


def test_deep_bytes_that_are_not_json_are_rejected() -> None:
    for line in (b"[" * 500_000, b'{"a":' * 100_000, b'{"x":"' + b'\\"' * 300_000, b'"' + b"[" * 900_000):
        assert decode_error(line)[1] == "unreadable"


def test_a_field_given_twice_has_its_last_value_and_a_type_given_twice_is_rejected() -> None:
    assert one(b'{"item_id":"z",' + json.dumps(CLICK).encode()[1:]) == one(CLICK)
    assert isinstance(one(b'{"type":"impression",' + json.dumps(CLICK).encode()[1:]), InvalidEvent)


@pytest.mark.parametrize(
    ("first", "at"), [(b'"ts":1', "$.ts"), (b'"request_id":null', "$.request_id"), (b'"action":5', "$.action")]
)
def test_the_detail_of_a_field_given_twice_never_blames_the_value_that_is_right(first: bytes, at: str) -> None:
    """The last value is right, and the one before it is not."""
    event = one(b"{" + first + b"," + json.dumps({"action": "click", **CLICK}).encode()[1:])
    assert isinstance(event, InvalidEvent)
    assert event.reason == "invalid_field"
    assert event.detail.startswith("a name is given twice")
    assert at in event.detail
    wrong_elsewhere = one(b"{" + first + b"," + json.dumps({"action": "click", **CLICK, "item_id": ""}).encode()[1:])
    assert isinstance(wrong_elsewhere, InvalidEvent)
    assert wrong_elsewhere.detail.startswith('item_id ""')


@settings(max_examples=300)
@given(st.binary(max_size=200))
@example(b"\xf4\x90\x80\x80")
@example(b'{"type":"click","request_id":"\\ud83d"}')
def test_no_bytes_raise(data: bytes) -> None:
    assert isinstance(one(data), InvalidEvent)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**63))
def test_mutated_events_are_events_of_the_contract_or_rejected(seed: int) -> None:
    rng = random.Random(seed)
    line = bytearray(json.dumps(rng.choice([PAGE, CLICK]), ensure_ascii=False).encode())
    for _ in range(rng.randrange(1, 5)):
        offset = rng.randrange(len(line))
        change = rng.randrange(4)
        if change == 0:
            line[offset] = rng.randrange(256)
        elif change == 1:
            del line[offset : offset + rng.randrange(1, 20)]
        elif change == 2:
            line[offset:offset] = rng.choice(
                [b"\x00", b"\xff", b'"', b"\\u", b"\\ud800", b"NaN", b"-", b"9" * 40, b"["]
            )
        else:
            other = rng.randrange(len(line))
            line[offset : offset + 10] = line[other : other + 10]
        line = line or bytearray(b" ")
    event = one(bytes(line))
    if isinstance(event, InvalidEvent):
        assert event.reason in Reason.__args__
        assert event.kind in {"impression", "click", "unreadable"}
        if event.kind != "unreadable":
            assert json.loads(line)["type"] == event.kind
    else:
        # An accepted event keeps the contract: encoded again it is the same event.
        assert one(msgspec.json.encode(event)) == event
        assert json.loads(line)["type"] == event.__struct_config__.tag


def texts(size: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=size)


@given(
    st.builds(
        ResultPage,
        request_id=texts(60),
        user_id=texts(60),
        query=texts(100),
        ts=st.integers(MIN_TS, MAX_TS),
        items=st.lists(
            st.builds(
                Item,
                item_id=texts(60),
                title=st.none() | texts(50),
                relevance=st.none() | st.integers(1, 4),
                price=st.none() | st.floats(allow_nan=False, allow_infinity=False),
                position=st.none() | st.integers(1, 1000),
            ),
            min_size=1,
            max_size=5,
        ),
    ),
    st.booleans(),
)
def test_every_valid_page_is_decoded_as_it_was_written(page: ResultPage, escaped: bool) -> None:
    line = json.dumps(msgspec.to_builtins(page), ensure_ascii=escaped).encode()
    for position, entry in enumerate(page.items, 1):
        entry.position = entry.position or position
    assert one(line) == page
