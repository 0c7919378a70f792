"""Promises of the values of events: generous where nothing is ambiguous, rejected elsewhere, never an exception."""

import decimal
import math
from typing import Any

import pytest

from prectr.stream.convert.outcome import ConversionReport, Unmappable
from prectr.stream.convert.values import (
    is_true,
    parse_json,
    shown,
    split_list,
    to_feature,
    to_id,
    to_number,
    to_optional_id,
    to_plain,
    to_text,
    to_visitor,
    to_whole,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", "a"), (" a ", "a"), (12, "12"), (12.0, "12"), (2**70, str(2**70)), (-1, "-1"), ("12.0", "12.0"), ("é", "é")],
)
def test_an_id_is_text_or_a_whole_number(value: object, expected: str) -> None:
    assert to_id("item_id", value) == expected


@pytest.mark.parametrize("value", [None, "", "  ", math.nan])
def test_an_empty_id_is_missing(value: object) -> None:
    assert to_optional_id("item_id", value) is None
    with pytest.raises(Unmappable) as error:
        to_id("item_id", value)
    assert error.value.reason == "missing_item_id"


@pytest.mark.parametrize("value", [True, 1.5, math.inf, 1e300, 2.0**53 + 2, [1], {"a": 1}, "\ud800"])
def test_other_values_are_no_ids(value: object) -> None:
    with pytest.raises(Unmappable) as error:
        to_id("item_id", value)
    assert error.value.reason == "invalid_item_id"


def test_a_session_stands_for_an_unknown_user() -> None:
    assert to_visitor("user_id", 7, None) == {"user_id": "7"}
    assert to_visitor("user_id", "u", "s") == {"user_id": "u", "session_id": "s"}
    assert to_visitor("user_id", None, "s") == {"session_id": "s"}
    with pytest.raises(Unmappable) as error:
        to_visitor("user_id", "", None)
    assert error.value.reason == "missing_user_id"


def test_texts_are_cut_and_numbers_are_texts() -> None:
    assert to_text("title", "abc", 2) == "ab"
    assert to_text("title", 5, 10) == "5"
    assert to_text("title", ["one"], 10) == "one"
    assert to_text("title", None, 10) is None
    assert to_text("title", math.nan, 10) is None
    for value in ({"a": 1}, ["a", "b"], "\udfff"):
        with pytest.raises(Unmappable):
            to_text("title", value, 10)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), ("1.5", 1.5), (" 2 ", 2.0), (None, None), ("", None), (math.nan, None), ("nan", None), (True, None)],
)
def test_numbers_may_be_texts_and_may_be_missing(value: object, expected: float | None) -> None:
    assert to_number("price", value) == expected


@pytest.mark.parametrize("value", ["$10.50", "1,000", [1], math.inf, 10**400])
def test_other_values_are_no_numbers(value: object) -> None:
    with pytest.raises(Unmappable) as error:
        to_number("price", value)
    assert error.value.reason == "invalid_price"


def test_whole_numbers_have_a_range() -> None:
    assert to_whole("position", "3.0", 1, 10) == 3
    assert to_whole("position", None, 1, 10) is None
    for value in (0, 11, 1.5, "x"):
        with pytest.raises(Unmappable):
            to_whole("position", value, 1, 10)


@pytest.mark.parametrize("value", [True, 1, 0.5, "1", "true", "yes", "i7", [0], {"a": 1}])
def test_conditions_that_hold(value: object) -> None:
    assert is_true(value)


@pytest.mark.parametrize(
    "value", [False, 0, 0.0, None, math.nan, [], {}, "", "0", "0.0", " False ", "no", "NULL", "None"]
)
def test_conditions_that_do_not_hold(value: object) -> None:
    assert not is_true(value)


def test_features_are_finite_numbers_and_short_texts() -> None:
    assert to_feature("bm25", 2) == 2.0
    assert to_feature("in_stock", True) == 1.0
    assert to_feature("device", "phone") == "phone"
    assert to_feature("device", "x" * 300) == "x" * 256
    for value in (None, "", math.nan, math.inf, 10**400, [1], {"a": 1}):
        assert to_feature("f", value) is None


def test_values_of_data_frames_become_those_of_json() -> None:
    row = {"price": decimal.Decimal("9.50"), "id": decimal.Decimal(7), "raw": b"abc", "uuid": b"\xff\x00"}
    assert to_plain({**row, "map": [("a", 1)], "list": [decimal.Decimal("1")], "none": None}) == {
        "price": 9.5,
        "id": 7,
        "raw": "abc",
        "uuid": "ff00",
        "map": {"a": 1},
        "list": [1],
        "none": None,
    }


def test_values_in_messages_are_short_however_large_or_deep() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 10**6, deep, [["x" * 100] * 100] * 100, {"k": "v" * 10**6}):
        assert len(shown(value)) < 3000


def test_reasons_that_contain_names_of_the_input_are_bounded() -> None:
    report = ConversionReport()
    for number in range(1000):
        report.skip(f"action_{number}", "place", "detail")
    report.skip("action_3", "place", "detail")
    assert len(report.skipped) == 201
    assert report.skipped["action_3"].count == 2
    assert report.skipped["other_reasons"].count == 800


@pytest.mark.parametrize(
    ("text", "separator", "expected"),
    [
        ("a|b", "|", ["a", "b"]),
        (" a ,  b ", ",", ["a", "b"]),
        ("a||b", "|", ["a", "", "b"]),
        ("{a,b}", ",", ["a", "b"]),
        ("['a', \"b\"]", ",", ["a", "b"]),
        ("['a' 'b'\n 'c']", " ", ["a", "b", "c"]),
        ("[]", ",", []),
        ("  ", ",", []),
        ("a", ",", ["a"]),
        ("'", ",", ["'"]),
    ],
)
def test_lists_in_texts(text: str, separator: str, expected: list[str]) -> None:
    assert split_list(text, separator) == expected


def test_json_in_texts_may_be_that_of_python() -> None:
    assert parse_json('{"a": [1, null, true]}') == {"a": [1, None, True]}
    assert parse_json(" {'a': [1, None, True]} ") == {"a": [1, None, True]}
    for text in ("{a}", "['a' 'b']", "import os", "__import__('os')", "[1, 2", "{1: {2"):
        with pytest.raises(ValueError, match="neither JSON nor"):
            parse_json(text)
