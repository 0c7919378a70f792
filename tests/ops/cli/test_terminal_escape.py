"""What a letter holds is shown, and no terminal obeys it."""

from hypothesis import given
from hypothesis import strategies as st

from prectr.ops.cli.terminal_escape import printable, printable_value


def test_json_is_spread_over_lines_and_anything_else_is_one() -> None:
    assert printable_value('{"a":[1.50,"ü"]}'.encode()) == '{\n  "a": [\n    1.50,\n    "ü"\n  ]\n}'
    assert printable_value(b'{"a": \xff}\n') == '{"a": \\xff}\\n'
    assert printable_value(b"") == ""
    assert printable_value(b"[" * 100_000) == "[" * 100_000


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert printable("a\x1b[2Jb\r\u202e\x9b") == "a\\x1b[2Jb\\r\\u202e\\x9b"
    assert printable_value('"\x7f\u2028"'.encode()) == '"\\x7f\\u2028"'


@given(st.binary(max_size=200))
def test_whatever_the_bytes_what_is_shown_is_printable(value: bytes) -> None:
    assert printable(value).isprintable()
    assert all(line.isprintable() for line in printable_value(value).split("\n"))
