"""Promises of the decoders: every value of its format is read, and no bytes raise anything but Unmappable."""

import datetime
import decimal
import io
import json
import uuid
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.state.errors import ConfigError, UsageError
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.kafka.ingest.value_decoder import decode_avro, decode_json, value_decoder

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Search",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "user", "type": ["null", "string"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "session", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "hits", "type": {"type": "array", "items": "string"}},
        {"name": "device", "type": {"type": "map", "values": "string"}},
    ],
}
PARSED = fastavro.parse_schema(SCHEMA)
MOMENT = datetime.datetime(2025, 3, 1, 10, tzinfo=datetime.UTC)
SESSION = uuid.UUID(int=7)
RECORD = {
    "id": 5,
    "user": "u",
    "at": MOMENT,
    "price": decimal.Decimal("49.50"),
    "session": SESSION,
    "hits": ["a", "b"],
    "device": {"os": "x"},
}


def avro_of(record: Any, schema: Any = PARSED) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def reason_of(decode: Any, *arguments: Any) -> str:
    with pytest.raises(Unmappable) as raised:
        decode(*arguments)
    return raised.value.reason


def test_json_is_read_with_and_without_a_schema_id() -> None:
    content = json.dumps({"a": [1, None, "é"]}).encode()
    assert decode_json(content) == decode_json(b"\x00\x00\x00\x00\x2a" + content) == {"a": [1, None, "é"]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not_json"),
        (b"\x00", "not_framed"),
        (b"\x00\x00\x00\x00\x01", "not_json"),
        (b"\x01{}", "not_json"),
        (b"[1]", "not_an_object"),
        (b'{"a": "\xff"}', "not_json"),
        (b'{"a":' + b" " * (1 << 20) + b"1}", "too_large"),
        (b"[" * 100_000, "too_deep"),
    ],
)
def test_a_value_that_is_no_json_object_is_unmappable(value: bytes, reason: str) -> None:
    assert reason_of(decode_json, value) == reason


def test_avro_is_read_with_its_logical_types() -> None:
    assert decode_avro(avro_of(RECORD), PARSED) == {
        "id": 5,
        "user": "u",
        "at": MOMENT,
        "price": 49.5,
        "session": str(SESSION),
        "hits": ["a", "b"],
        "device": {"os": "x"},
    }


def test_avro_behind_a_schema_id_is_not_read_as_avro_alone() -> None:
    assert reason_of(decode_avro, b"\x00\x00\x00\x00\x01" + avro_of(RECORD), PARSED) == "not_avro"


def test_avro_of_another_type_than_a_record_is_unmappable() -> None:
    assert reason_of(decode_avro, avro_of("text", "string"), "string") == "not_an_object"


def test_a_value_is_read_as_another_version_of_its_schema() -> None:
    newer = {**SCHEMA, "fields": [*SCHEMA["fields"][:2], {"name": "country", "type": "string", "default": "de"}]}
    assert decode_avro(avro_of(RECORD), PARSED, fastavro.parse_schema(newer)) == {"id": 5, "user": "u", "country": "de"}


@given(
    st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1),
    st.none() | st.text(),
    st.lists(st.text(), max_size=5),
    st.dictionaries(st.text(), st.text(), max_size=5),
)
def test_what_avro_writes_is_read_again(number: int, user: str | None, hits: list[str], device: dict[str, str]) -> None:
    record = {**RECORD, "id": number, "user": user, "hits": hits, "device": device}
    found = decode_avro(avro_of(record), PARSED)
    assert (found["id"], found["user"], found["hits"], found["device"]) == (number, user, hits, device)


@given(st.data())
def test_damaged_avro_is_unmappable_or_another_record(data: st.DataObject) -> None:
    """Bytes are changed, cut off or appended."""
    value = bytearray(avro_of(RECORD))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(1, len(value)))
    try:
        found = decode_avro(bytes(value[:end]) + data.draw(st.binary(max_size=3)), PARSED)
    except Unmappable:
        return
    assert list(found) == [field["name"] for field in SCHEMA["fields"]]


@given(st.binary(max_size=60))
def test_any_bytes_are_unmappable_or_a_record(value: bytes) -> None:
    for decode in (decode_json, lambda given: decode_avro(given, PARSED)):
        try:
            assert isinstance(decode(value), dict)
        except Unmappable:
            continue


def test_a_file_holds_the_schema_of_values_with_and_without_an_id(tmp_path: Path) -> None:
    path = tmp_path / "search.avsc"
    path.write_text(json.dumps(SCHEMA))
    assert value_decoder("avro", path, None)(avro_of(RECORD))["id"] == 5
    framed = value_decoder("avro-confluent", path, None)
    assert framed(b"\x00\x00\x00\x00\x09" + avro_of(RECORD))["id"] == 5
    assert reason_of(framed, avro_of(RECORD)) == "not_framed"


def test_a_format_without_the_schema_that_it_needs_is_wrong_use(tmp_path: Path) -> None:
    schema = tmp_path / "search.avsc"
    for value_format, path in (("avro", None), ("avro-confluent", None), ("json", schema)):
        with pytest.raises(UsageError):
            value_decoder(value_format, path, None)  # type: ignore[arg-type]
    for text in ("{", '"nothing"', '{"type": "record"}', "[]x", '{"type": "record", "name": "A", "fields": [{}]}'):
        schema.write_text(text)
        with pytest.raises(ConfigError, match=r"search\.avsc"):
            value_decoder("avro", schema, None)
