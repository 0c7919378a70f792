"""Query keys: equivalent queries have the same key, and the key of a key is the key itself."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.stream.events.query_key import normalise_query


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("Red  Shoes", "red shoes"),
        (" \tred\u00a0shoes\r\n", "red shoes"),
        ("ＲＥＤ ｓｈｏｅｓ", "red shoes"),
        ("STRASSE", "strasse"),
        ("straße", "strasse"),
        ("Cafe\u0301", "café"),
        ("İ", "i̇"),
        ("ﬁne", "fine"),
        ("10㎏", "10kg"),
        ("ΟΔΟΣ", "οδοσ"),
        ("οδος", "οδοσ"),
        ("", ""),
        ("\u3000", ""),
    ],
)
def test_spellings_of_one_query_have_one_key(query: str, key: str) -> None:
    assert normalise_query(query) == key


@settings(max_examples=500)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_the_key_of_a_key_is_the_key(query: str) -> None:
    key = normalise_query(query)
    assert normalise_query(key) == key
    assert unicodedata.is_normalized("NFKC", key)
    assert key == " ".join(key.split())


def test_every_character_alone_and_before_a_combining_mark_has_a_stable_key() -> None:
    normalise = normalise_query.__wrapped__
    for code in [*range(0xD800), *range(0xE000, 0x30000)]:
        for query in (chr(code), f"α{chr(code)}\u0345"):
            key = normalise(query)
            assert normalise(key) == key
