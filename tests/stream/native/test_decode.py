"""Lines that the core decodes itself come out as from the decoder in Python, whatever is wrong with them."""

import json
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("prectr.stream.native.core", reason="the extension is not built")

from prectr.stream.events.contract import InvalidEvent, ResultPage
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.event_batch import NO_TIME
from prectr.stream.events.partition import partitions_of
from prectr.stream.native import core
from prectr.stream.native.event_batch import NativeEventBatch
from tests.kit.stages.events import T, click, page
from tests.kit.stages.join_driver import world
from tests.oracle.world import Disorder, make_world

encode = msgspec.msgpack.Encoder(order="deterministic").encode
OTHER_FORMS = tuple(make_world(1, Disorder(pages=40, users=5, gap=25.0, malformed=0.2)))
LINES = (
    *world(0)[:60],
    *OTHER_FORMS[:60],
    page("r", "u", T, features={"b": 1, "a": "x", "c": -2.5e-3}, context={"é": "1", "a": ""}),
    page("r", "u", T, levels=(None, None), query="ﬁne  Straße"),
    click("r", "u", T),
    json.dumps(
        {"type": "click", "request_id": "r", "session_id": "s", "item_id": "a", "ts": T, "action": "buy"}
    ).encode(),
    '{"ts": 1700000000000, "items": [{"item_id": "é", "price": 0.1, "features": {}}], "query": null, "user_id": null, '
    '"session_id": "s", "request_id": "\\u00e9\\ud83d\\ude00", "type": "impression", "x": [{"a": [1e5]}]}'.encode(),
)
PIECES = (
    b"", b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"null", b"true", b"-0", b"-0.0", b"0", b"00", b"1e2",
    b"1e400", b"1.0", b"4.0", b"-1", b"5", b"12345678901234567890", b'"click"', b'"type":', b'"ts":1,',
    b'"relevance":3,', b"\n",
    b"\x00", b"\xff", b"\xed\xa0\x80", b"\xc3\xa9", b"\\u0000", b"\\ud800", b"\\ud83d\\ude00", b"\\x", b"\xef\xbb\xbf",
    b'"user_id":"",', b'"user_id":null,', b'"session_id":"s",', b'"a":{"a":[[{}]]},', b"[" * 40, b"a" * 300, b" ", b"/",
)  # fmt: skip


def assert_equal(lines: Sequence[bytes]) -> None:
    """What the core decodes itself is right, and the batch as a whole is the decoder's."""
    expected = decode_lines(lines)
    batch = NativeEventBatch(lines, range(len(lines)))
    for index, event in enumerate(expected):
        if isinstance(event, InvalidEvent):
            assert batch.invalid[index] == event
        elif isinstance(event, ResultPage):
            assert batch.core.query(index) == event.query
    assert batch.times().tolist() == [NO_TIME if isinstance(each, InvalidEvent) else each.ts for each in expected]
    assert batch.user_ids(1) == [None if isinstance(each, InvalidEvent) else each.user_id for each in expected]
    assert batch.core.split(7) == partitions_of([event.user_id for event in expected], 7)
    found = [batch.core.event(index) for index in range(len(lines))]
    assert found == [b"" if isinstance(event, InvalidEvent) else encode(event) for event in expected]


def test_lines_in_the_form_of_the_contract_are_not_left_to_python() -> None:
    plain = [page("r", "u", T), click("r", "u", T), page("é", "ü", T, query="日本", levels=(None, 2))]
    assert core.EventBatch(plain, memoryview(bytes(8 * len(plain)))).unsure() == []
    assert_equal(LINES)


@settings(max_examples=400)
@given(
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=4),
    changes=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 1 << 20), st.integers(0, 12), st.sampled_from(PIECES)), max_size=3
    ),
)
def test_mutated_lines_are_decoded_alike_or_left_to_python(
    lines: list[bytes], changes: list[tuple[int, int, int, bytes]]
) -> None:
    """At a place in a line, some bytes are replaced by a piece."""
    for index, place, size, piece in changes:
        line = lines[index % len(lines)]
        start = place % (len(line) + 1)
        lines[index % len(lines)] = line[:start] + piece + line[start + size :]
    assert_equal(lines)


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=80), max_size=5))
def test_arbitrary_bytes_are_decoded_alike(lines: list[bytes]) -> None:
    assert_equal(lines)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**18) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    which=st.integers(0, len(LINES) - 1),
    field=st.sampled_from(
        [
            "type",
            "request_id",
            "user_id",
            "session_id",
            "item_id",
            "ts",
            "query",
            "items",
            "context",
            "features",
            "action",
        ]
    ),
    item_field=st.sampled_from(["item_id", "title", "relevance", "price", "category", "brand", "position", "features"]),
    value=VALUES,
    of_item=st.booleans(),
    is_ascii=st.booleans(),
)
def test_any_value_in_any_field_is_judged_alike(
    which: int, field: str, item_field: str, value: object, of_item: bool, is_ascii: bool
) -> None:
    try:
        event = json.loads(LINES[which])
    except ValueError:
        return
    if not isinstance(event, dict):
        return
    if of_item and isinstance(event.get("items"), list) and event["items"]:
        event["items"][-1][item_field] = value
    else:
        event[field] = value
    assert_equal([json.dumps(event, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")])
