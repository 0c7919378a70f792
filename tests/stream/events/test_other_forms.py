"""The forms of an event that are read besides the canonical one, and what is said of those that are not."""

import json
import logging
from typing import Any

import pytest

from prectr.stream.events.contract import Click, InvalidEvent, Item, ResultPage
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.ignored_fields import IgnoredFields

T = 1_700_000_000_000
PAGE: dict[str, Any] = {
    "type": "impression",
    "request_id": "r",
    "user_id": "u",
    "query": "red shoes",
    "ts": T,
    "items": [{"item_id": "a"}, {"item_id": "b"}],
}
CLICK: dict[str, Any] = {"type": "click", "request_id": "r", "user_id": "u", "item_id": "a", "ts": T}
READ_PAGE = ResultPage("r", "u", "red shoes", T, [Item("a", position=1), Item("b", position=2)])
READ_CLICK = Click("r", "u", "a", T)


def one(event: dict[str, Any] | str) -> ResultPage | Click | InvalidEvent:
    (decoded,) = decode_lines([(event if isinstance(event, str) else json.dumps(event)).encode()])
    return decoded


def without(event: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in names}


def refused(event: dict[str, Any]) -> tuple[str, str]:
    decoded = one(event)
    assert isinstance(decoded, InvalidEvent), decoded
    return decoded.reason, decoded.detail


# --- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        (1.7e12, T),
        ("2023-11-14T22:13:20Z", T),
        ("2023-11-14t22:13:20.5z", T + 500),
        ("2023-11-14 22:13:20,123456789+00:00", T + 123),
        ("2023-11-15T03:43:20+05:30", T),
        ("2023-11-14T14:13:20-0800", T),
        ("2023-11-14T14:13:20 -08", T),
        ("2023-11-14 22:13:20 UTC", T),
        ("2023-11-14T22:13Z", T - 20_000),
        ("2000-01-01T00:00:00Z", 946_684_800_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        (946_684_800_000, 946_684_800_000),
    ],
)
def test_a_time_is_milliseconds_or_iso_8601_with_a_zone(ts: object, expected: int) -> None:
    page, click = one(PAGE | {"ts": ts}), one(CLICK | {"ts": ts})
    assert isinstance(page, ResultPage)
    assert isinstance(click, Click)
    assert (page.ts, click.ts) == (expected, expected)
    assert type(page.ts) is int


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (7, "7"),
        (-7, "-7"),
        (7.0, "7"),
        (-0.0, "0"),
        (2.0**53, "9007199254740992"),
        (2**64 + 1, "18446744073709551617"),
        ("7.0", "7.0"),
    ],
)
def test_a_whole_number_is_an_id_by_its_decimal_form(written: object, expected: str) -> None:
    click = one(CLICK | {"request_id": written, "user_id": written, "item_id": written})
    assert click == Click(expected, expected, expected, T)
    page = one(PAGE | {"items": [{"item_id": written}]})
    assert isinstance(page, ResultPage)
    assert page.items == [Item(expected, position=1)]


@pytest.mark.parametrize(
    ("visitor", "expected"),
    [
        ({"session_id": "s"}, "s"),
        ({"session_id": 5}, "5"),
        ({"user_id": None, "session_id": "s"}, "s"),
        ({"user_id": "", "session_id": "s"}, "s"),
        ({"user_id": "u", "session_id": "s"}, "u"),
        ({"user_id": 0, "session_id": "s"}, "0"),
        ({"user_id": "u", "session_id": ["no id"], "ts": float(T)}, "u"),
        ({"session_id": "é" * 128}, "é" * 128),
    ],
)
def test_a_session_takes_the_place_of_a_user_who_is_not_known(visitor: dict[str, Any], expected: str) -> None:
    for event in (PAGE, CLICK):
        read = one(without(event, "user_id") | visitor)
        assert not isinstance(read, InvalidEvent)
        assert read.user_id == expected


def test_an_invalid_event_of_a_session_is_of_that_session() -> None:
    read = one(without(CLICK, "user_id", "ts") | {"session_id": "s"})
    assert isinstance(read, InvalidEvent)
    assert read.user_id == "s"


def test_browsing_and_searches_without_hits_are_pages() -> None:
    assert one(PAGE | {"query": None}) == one(PAGE | {"query": ""})
    assert one(PAGE | {"items": []}) == ResultPage("r", "u", "red shoes", T, [])


def test_whole_numbers_of_a_data_frame_are_floats() -> None:
    page = one(PAGE | {"items": [{"item_id": 1.0, "relevance": 4.0, "position": 3.0, "price": 5}]})
    assert isinstance(page, ResultPage)
    assert repr(page.items) == repr([Item("1", relevance=4, price=5.0, position=3)])


def test_null_is_the_same_as_a_field_that_is_left_out() -> None:
    item = dict.fromkeys(("title", "relevance", "price", "category", "brand", "position", "features"))
    nulls = PAGE | {"items": [item | {"item_id": each} for each in "ab"], "context": None, "features": None}
    assert one(nulls) == READ_PAGE
    assert one(CLICK | {"action": None}) == READ_CLICK


def test_features_are_finite_numbers_and_short_texts() -> None:
    values = {"int": 3, "float": 0.5, "large": 10**20, "true": True, "false": False, "text": "x" * 256, "null": None}
    expected = {"int": 3.0, "float": 0.5, "large": 1e20, "true": 1.0, "false": 0.0, "text": "x" * 256}
    page = one(PAGE | {"features": values, "items": [{"item_id": "a", "features": values}]})
    assert isinstance(page, ResultPage)
    assert repr(page.features) == repr(page.items[0].features) == repr(expected)
    context = one(PAGE | {"context": {"device": "phone", "land": None}})
    assert isinstance(context, ResultPage)
    assert context.context == {"device": "phone"}


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "NaN"])
@pytest.mark.parametrize("frame", ['"ts":1700000000000', '"ts":1.7e12'])
def test_a_feature_that_is_not_finite_is_refused_in_every_form(number: str, frame: str) -> None:
    line = json.dumps(PAGE | {"features": {"x": 0.125}}).replace("0.125", number).replace(f'"ts": {T}', frame)
    assert isinstance(one(line), InvalidEvent)


@pytest.mark.parametrize("ts", [T, float(T)])
def test_an_event_is_the_same_whichever_form_one_of_its_fields_has(ts: object) -> None:
    """Each page is decoded once as canonical, and once more by the other decoder for its time alone."""
    features = {"b": 1.5, "a": "é"}
    page = PAGE | {"features": features, "context": {"x": "y"}, "items": [{"item_id": "ü", "features": {}}]}
    assert one(page | {"ts": ts}) == ResultPage(
        "r", "u", "red shoes", T, [Item("ü", position=1, features={})], {"x": "y"}, {"a": "é", "b": 1.5}
    )
    assert one(CLICK | {"ts": ts, "action": "purchase"}) == Click("r", "u", "a", T, "purchase")


# --- what is refused, and what is said of it ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ts", "said"),
    [
        (1_700_000_000, "looks like seconds (2023-11-14): ts is in milliseconds, so multiply by 1,000"),
        (1_700_000_000.25, "looks like seconds"),
        (1_700_000_000_000_000, "looks like microseconds (2023-11-14)"),
        (1_700_000_000_000_000_000, "looks like nanoseconds"),
        (1.7e18, "looks like nanoseconds"),
        (19_675, "looks like days (2023-11-14)"),
        (0, "a missing time"),
        (-1, "before 2000"),
        (946_684_799_999, "before 2000"),
        (253_402_300_800_000, "after the year 9999"),
        (10**40, "after the year 9999"),
        ("1999-12-31T23:59:59Z", "before 2000"),
        ("2000-01-01T00:00:00+01:00", "before 2000"),
        ("9999-12-31T20:00:00-08:00", "after the year 9999"),
    ],
)
def test_an_implausible_time_says_what_it_looks_like(ts: object, said: str) -> None:
    for event in (PAGE, CLICK):
        reason, detail = refused(event | {"ts": ts})
        assert reason == "implausible_time"
        assert said in detail


def test_a_unit_is_taken_for_another_only_where_the_time_itself_is_none() -> None:
    """Milliseconds of 2000 to 9999 are valid, so that no valid time is refused for what it looks like."""
    for ts in (946_684_800_000, 4_102_444_800_000, 253_402_300_799_999):
        assert not isinstance(one(CLICK | {"ts": ts}), InvalidEvent)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ts": "2023-11-14T22:13:20"}, 'ts "2023-11-14T22:13:20" has no time zone: append Z'),
        ({"ts": "2023-11-14"}, "is a date without a time of day"),
        ({"ts": "1700000000000"}, "a number in quotes"),
        ({"ts": "2023-02-30T00:00:00Z"}, "not in the calendar"),
        ({"ts": "1999-12-31T16:00:00-08:00"}, "of the year 1999 in its zone: write it in UTC"),
        ({"ts": "yesterday"}, "not ISO 8601 with a time zone"),
        ({"ts": T + 0.5}, "has a fraction"),
        ({"ts": True}, "ts true must be milliseconds"),
        ({"ts": None}, "ts null must be milliseconds"),
        ({"items": [{"item_id": "a", "position": 0}]}, "position 0 must be a whole number from 1"),
        ({"items": [{"item_id": "a"}, {"item_id": "b", "position": 0}]}, "at `$.items[1].position`"),
        ({"items": [{"item_id": "a", "relevance": 0}]}, "relevance 0 must be a level from 1 (irrelevant) to 4"),
        ({"items": [{"item_id": "a", "relevance": 5}]}, "relevance 5 must be a level from 1"),
        ({"items": [{"item_id": "a", "price": "$10.50"}]}, 'price "$10.50" must be a number, without quotes or'),
        ({"items": [{"item_id": "a", "price": "10.5"}]}, 'price "10.5" must be a number'),
        ({"items": [{"item_id": "a", "features": {"x": 1, "y": [2]}}]}, 'features: "y" (a list) must hold at most 64'),
        ({"features": {"long": "x" * 257}}, 'features: "long" "xxx'),
        ({"context": {"page": 2}}, 'context: "page" 2 must hold at most 64 texts'),
        ({"items": {"a": 1}}, 'items {"a": 1} must be a list of at most 200'),
        ({"items": {"a": 1, "b": 2}}, "items (an object) must be a list of at most 200"),
        ({"query": 5}, "query 5 must be text"),
        ({"user_id": True}, "user_id true must be text of 1 to 256 bytes, or a whole number"),
        ({"user_id": 7.5}, "user_id 7.5 must be text"),
        ({"user_id": 1e17}, "user_id 1e+17 is a floating-point number that has lost digits"),
        ({"user_id": None, "session_id": [1]}, "session_id (a list) must be text"),
    ],
)
def test_the_detail_of_an_invalid_field_says_what_is_right(wrong: dict[str, Any], said: str) -> None:
    reason, detail = refused(PAGE | wrong)
    assert reason == "invalid_field"
    assert said in detail


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (without(PAGE, "user_id") | {"userId": "u"}, 'the field `user_id` is missing; there is a field "userId"'),
        (without(PAGE, "user_id") | {"visitor_id": "u"}, 'there is a field "visitor_id": is that it?'),
        (without(PAGE, "query") | {"qurey": "q"}, 'there is a field "qurey"'),
        (without(PAGE, "ts") | {"timestamp": T}, 'the field `ts` is missing; there is a field "timestamp"'),
        (PAGE | {"items": [{"sku": "a"}]}, 'the field `item_id` of `$.items[0]` is missing; there is a field "sku"'),
        (without(CLICK, "item_id"), "the field `item_id` is missing"),
        (without(PAGE, "user_id"), "the field `user_id` is missing"),
    ],
)
def test_a_missing_field_names_the_one_that_may_be_meant(event: dict[str, Any], said: str) -> None:
    reason, detail = refused(event)
    assert reason == "missing_field"
    assert said in detail
    assert ("is that it" in detail) == ("there is" in said)


def test_details_are_ascii_whatever_the_values() -> None:
    """A dead letter's detail is shown on terminals."""
    _, detail = refused(PAGE | {"ts": "\x1b[31mgestern ü\u202e"})
    assert detail.isascii()
    assert detail.isprintable()


# --- fields that nothing reads --------------------------------------------------------------------------------------


def test_an_ignored_field_is_told_once_with_an_example(caplog: pytest.LogCaptureFixture) -> None:
    page = PAGE | {"bm25": 3, "features": {"x": 1}, "items": [{"item_id": "a", "stock": "\x1blow"}]}
    lines = [json.dumps(page).encode(), b"no event"]
    fields = IgnoredFields()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            fields.look_at(lines)
        fields.look_at([json.dumps(CLICK | {"bm25": 3}).encode()])
    told = [record.getMessage() for record in caplog.records]
    assert [message.split(":")[0] for message in told] == [
        'the field "bm25" of impressions is not read (its value here',
        'the field "stock" of items is not read (its value here',
        'the field "bm25" of clicks is not read (its value here',
    ]
    assert "\\u001blow" in told[1]
    assert "`features`" in told[0]


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"null", b'{"type":[]}', b'{"type":"click"', b"\xff", b"[" * 5000, b'{"type":"click","x":1e999}'],
)
def test_looking_for_ignored_fields_bears_any_bytes(line: bytes) -> None:
    IgnoredFields().look_at([line])
