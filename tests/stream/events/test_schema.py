"""The JSON Schema: the shipped file is up to date, and it accepts what the decoder accepts."""

import json
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prectr.stream.events.contract import Click, InvalidEvent, Item, ResultPage
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.event_time import MAX_TS, MIN_TS
from prectr.stream.events.schema import event_schema, event_schema_text

SHIPPED = Path(__file__).parents[3] / "docs" / "search-events.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(event_schema())

# --- events of every form -------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    ["é" * 128, "x" * 256, "日本"]
)
labels = texts | st.sampled_from(["x" * 257, "é" * 256])
whole = st.integers(1, 4)
numbers = st.one_of(
    st.integers(-5, 10),
    st.sampled_from([0, -0.0, 4.0, 4.5, 1e3, 2**53, 2.0**53, 2**63, 10**20, 10**40, 1e300, 1.7e12, 1.7e9, 1.7e15]),
    st.floats(allow_nan=False, allow_infinity=False),
)
anything = st.one_of(
    st.none(), st.booleans(), numbers, labels, st.just([]), st.just({}), st.just([1]), st.just({"a": {"b": 1}})
)
ids = texts.filter(bool) | st.integers(-(10**20), 10**20) | st.integers(-(2**53), 2**53).map(float)
moments = st.datetimes(datetime(2000, 1, 3), datetime(9999, 12, 28)).flatmap(
    lambda moment: st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8))]).map(
        lambda zone: moment.replace(tzinfo=zone).isoformat()
    )
)
times = st.one_of(
    st.integers(MIN_TS, MAX_TS), st.integers(MIN_TS, MAX_TS).map(float), moments, moments.map(lambda t: t[:19] + "Z")
)
features = st.dictionaries(texts, st.none() | st.booleans() | texts | numbers, max_size=4)
contexts = st.dictionaries(texts, st.none() | texts, max_size=4)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in fields.items()})


def merged(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda found: {name: value for part in found for name, value in part.items()})


visitors = st.one_of(
    st.fixed_dictionaries({"user_id": ids}, optional={"session_id": anything}),
    st.fixed_dictionaries({"session_id": ids}, optional={"user_id": st.sampled_from([None, ""])}),
)
items = merged(
    st.fixed_dictionaries({"item_id": ids}),
    optional(
        title=texts,
        relevance=whole | whole.map(float),
        price=numbers,
        category=texts,
        brand=texts,
        position=st.integers(1, 10**6) | whole.map(float),
        features=features,
        unknown=anything,
    ),
)
pages = merged(
    st.fixed_dictionaries(
        {
            "type": st.just("impression"),
            "request_id": ids,
            "query": st.none() | texts,
            "ts": times,
            "items": st.lists(items, max_size=3),
        }
    ),
    visitors,
    optional(features=features, context=contexts, unknown=anything),
)
clicks = merged(
    st.fixed_dictionaries({"type": st.just("click"), "request_id": ids, "item_id": ids, "ts": times}),
    visitors,
    optional(action=texts.filter(bool), unknown=anything),
)
events = pages | clicks


def holders_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the event and its items."""
    items = event.get("items")
    return [event, *(item for item in (items if isinstance(items, list) else ()) if isinstance(item, dict))]


@st.composite
def nearly_valid(draw: st.DrawFn) -> dict[str, Any]:
    """An event of which one or two values are taken away, or are others."""
    event = draw(events)
    for _ in range(draw(st.integers(1, 2))):
        holder = draw(st.sampled_from([part for part in holders_of(event) if part]))
        name = draw(st.sampled_from(sorted(holder)))
        change = draw(st.integers(0, 3))
        if change == 0:
            del holder[name]
        elif change == 1 and isinstance(holder[name], dict):
            holder[name] = holder[name] | {draw(labels): draw(anything)}
        elif change == 2 and isinstance(holder[name], list):
            holder[name] = [*holder[name], draw(anything)] + [{"item_id": "i"}] * draw(st.sampled_from([0, 198, 201]))
        else:
            holder[name] = draw(anything | times | labels)
    return event


# --- agreement ------------------------------------------------------------------------------------------------------


def is_accepted(line: str) -> bool:
    (event,) = decode_lines([line.encode()])
    return not isinstance(event, InvalidEvent)


def is_documented_exception(event: dict[str, Any]) -> bool:
    """What the schema's descriptions say that it cannot express: bytes of ids, large floats as ids, the calendar."""
    fields = ("request_id", "user_id", "session_id", "item_id")
    ids_found = [holder[name] for holder in holders_of(event) for name in fields if name in holder]
    if any(isinstance(found, str) and len(found.encode()) > 256 for found in ids_found):
        return True
    if any(isinstance(found, float) and abs(found) > 2**53 for found in ids_found):
        return True
    return isinstance(event.get("ts"), str) and bool(re.match("2000-01-01|9999-12-31", event["ts"]))


@settings(max_examples=300, deadline=None)
@given(events)
def test_a_valid_event_of_any_form_is_accepted_by_decoder_and_schema(event: dict[str, Any]) -> None:
    line = json.dumps(event)
    assume(not is_documented_exception(event))
    VALIDATOR.validate(json.loads(line))
    assert is_accepted(line)


@settings(max_examples=600, deadline=None)
@given(nearly_valid(), st.booleans())
def test_decoder_and_schema_agree_on_events_that_are_nearly_valid(event: dict[str, Any], escaped: bool) -> None:
    assume(not is_documented_exception(event))
    line = json.dumps(event, ensure_ascii=escaped)
    assert is_accepted(line) == VALIDATOR.is_valid(json.loads(line)), line


NUMBERS = ["4", "4.0", "0.4e1", "40e-1", "-0.0", "0", "1e3", "1E3", "1e999", "-1e999", "4.000000000000001", "9" * 400]
NUMBERS += ["1e12", "1.7e12", "1700000000000.0", "1700000000000.5", "170000000000000e-2", "9007199254740993"]
NUMBERS += ["946684799999", "946684800000", "253402300799999", "253402300800000", "253402300799999.0", "true", "null"]
TEMPLATES = [
    '{"type":"click","request_id":"r","user_id":"u","item_id":"i","ts":§}',
    '{"type":"click","request_id":§,"user_id":"u","item_id":"i","ts":1700000000000}',
    '{"type":"click","request_id":"r","session_id":§,"item_id":"i","ts":1700000000000.0}',
    '{"type":"click","request_id":"r","user_id":"u","session_id":§,"item_id":"i","ts":1700000000000.0}',
    '{"type":"click","request_id":"r","user_id":"u","item_id":"i","ts":1700000000000,"unknown":§}',
    *(
        '{"type":"impression","request_id":"r","user_id":"u","query":null,"ts":1700000000000,"items":[{"item_id":"i",'
        f'"{field}":§}}]}}'
        for field in ("relevance", "position", "price", "features")
    ),
    '{"type":"impression","request_id":"r","user_id":"u","query":"q","ts":1700000000000,"items":[],"features":{"x":§}}',
    '{"type":"impression","request_id":"r","user_id":"u","query":"q","ts":1700000000000,"items":[],"context":{"x":§}}',
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("number", NUMBERS)
def test_decoder_and_schema_agree_on_numbers_as_they_are_written(template: str, number: str) -> None:
    line = template.replace("§", number)
    parsed = json.loads(line)
    is_an_id = '_id":§' in template and '"user_id":"u","session_id"' not in template
    if is_an_id and number in ("1e999", "-1e999", "9" * 400):
        # More digits than an id may have bytes, or a float without all its digits: a documented exception.
        assert not is_accepted(line)
        return
    assert is_accepted(line) == VALIDATOR.is_valid(parsed)


@pytest.mark.parametrize(
    ("ts", "accepted"),
    [
        ("2026-01-31T12:00:00Z", True),
        ("2026-01-31T12:00:00.123456+01:00", True),
        ("2026-01-31 12:00:00,5 -0800", True),
        ("2026-01-31 12:00:00 UTC", True),
        ("2026-01-31T12:00z", True),
        ("2026-01-31T12:00:00+01", True),
        ("1999-12-31T23:59:59Z", False),
        ("2026-01-31T12:00:00", False),
        ("2026-01-31", False),
        ("2026-13-01T12:00:00Z", False),
        ("2026-01-31T24:00:00Z", False),
        ("2026-01-31T12:00:60Z", False),
        ("2026-01-31T12:00:00Z\n", False),
        (" 2026-01-31T12:00:00Z", False),
        ("２０２６-01-31T12:00:00Z", False),
        ("1700000000000", False),
        ("", False),
    ],
)
def test_decoder_and_schema_agree_on_times_as_text(ts: str, accepted: bool) -> None:
    event = {"type": "click", "request_id": "r", "user_id": "u", "item_id": "i", "ts": ts}
    assert is_accepted(json.dumps(event)) is accepted
    assert VALIDATOR.is_valid(event) is accepted


@pytest.mark.parametrize("ts", ["2026-02-30T12:00:00Z", "2000-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"])
def test_the_calendar_and_the_first_hours_of_2000_are_known_to_the_decoder_alone(ts: str) -> None:
    event = {"type": "click", "request_id": "r", "user_id": "u", "item_id": "i", "ts": ts}
    assert not is_accepted(json.dumps(event))
    assert VALIDATOR.is_valid(event)


# --- the file -------------------------------------------------------------------------------------------------------


def test_the_shipped_file_is_up_to_date() -> None:
    assert SHIPPED.read_text() == event_schema_text(), "run: prectr schema --out docs/search-events.schema.json"


def test_the_schema_is_one_and_has_every_field_of_the_contract() -> None:
    schema: dict[str, Any] = json.loads(event_schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    parts = schema["$defs"]
    page, click, item = parts["ResultPage"], parts["Click"], parts["Item"]
    assert set(page["properties"]) == {"type", "session_id", *ResultPage.__struct_fields__}
    assert set(click["properties"]) == {"type", "session_id", *Click.__struct_fields__}
    assert set(item["properties"]) == set(Item.__struct_fields__)
    assert sorted(page["required"]) == ["items", "query", "request_id", "ts", "type"]
    assert sorted(click["required"]) == ["item_id", "request_id", "ts", "type"]
    assert item["required"] == ["item_id"]
    assert page["properties"]["items"]["maxItems"] == 200
    level, time = item["properties"]["relevance"]["anyOf"][0], click["properties"]["ts"]["anyOf"][0]
    assert (level["minimum"], level["maximum"]) == (1, 4)
    assert datetime.fromtimestamp(time["minimum"] / 1000, UTC) == datetime(2000, 1, 1, tzinfo=UTC)
    price = item["properties"]["price"]["anyOf"][0]
    assert price["maximum"] == math.nextafter(math.inf, 0)
