"""The lexical labeller: the level is a fixed function of query and title."""

import pytest

from prectr.stream.events.contract import Item, ResultPage
from prectr.stream.events.lexical_labeller import LexicalLabeller, lexical_level
from prectr.stream.events.query_key import normalise_query


@pytest.mark.parametrize(
    ("query", "title", "level"),
    [
        ("red shoes", "Red Running SHOES, size 42", 4),
        ("shoes", "shoes", 4),
        ("red shoes", "Blue shoes", 3),
        ("red running shoes", "Shoes for running", 3),
        ("red running shoes", "Shoes", 2),
        ("a b c d e", "e", 2),
        ("red shoes", "Hat", 1),
        ("red shoes", "", 1),
        ("red shoes", None, 1),
        ("", "Hat", 1),
        ("?!", "?!", 1),
        ("shoe", "shoes", 1),
        ("red red red shoes", "red", 3),
        ("straße", "STRASSE", 4),
        ("usb-c kabel", "Kabel USB C", 4),
    ],
)
def test_the_level_is_the_share_of_the_querys_words_in_the_title(query: str, title: str | None, level: int) -> None:
    assert lexical_level(normalise_query(query), title) == level


def test_only_missing_levels_are_filled_in() -> None:
    page = ResultPage("r", "u", "Red shoes", 1, [Item("a", "red shoes", 2), Item("b", "red shoes"), Item("c")])
    LexicalLabeller()(normalise_query(page.query), page)
    assert [item.relevance for item in page.items] == [2, 4, 1]
