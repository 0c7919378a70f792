"""Promises of the registry's client: each schema is fetched once, and each failure is told apart."""

import logging
from collections.abc import Callable
from typing import Any

import fastavro
import pytest

from prectr.state.errors import ConfigError, PrectrError
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.kafka.ingest import schema_registry as module
from prectr.stream.kafka.ingest.schema_registry import SchemaRegistry
from prectr.stream.kafka.ingest.value_decoder import decode_avro, value_decoder
from tests.kit.kafka.registry import running_registry, schema_answer
from tests.stream.ingest.test_value_decoder import PARSED, RECORD, SCHEMA, avro_of

ITEM = {"type": "record", "name": "shop.Item", "fields": [{"name": "sku", "type": "string"}]}
PAGE = {
    "type": "record",
    "name": "shop.Page",
    "fields": [{"name": "items", "type": {"type": "array", "items": "shop.Item"}}],
}


@pytest.fixture
def no_sleep() -> tuple[list[float], Callable[[float], None]]:
    slept: list[float] = []
    return slept, slept.append


def reason_of(registry: SchemaRegistry, schema_id: int) -> Unmappable:
    with pytest.raises(Unmappable) as raised:
        registry.schema(schema_id)
    return raised.value


def test_a_schema_is_fetched_once() -> None:
    with running_registry({"/base/schemas/ids/7": schema_answer(SCHEMA)}) as server:
        decode = value_decoder("avro-confluent", None, SchemaRegistry(f"{server.url}/base/"))
        for _ in range(3):
            assert decode(b"\x00\x00\x00\x00\x07" + avro_of(RECORD))["id"] == 5
        assert server.asked == ["/base/schemas/ids/7"]


def test_references_of_a_schema_are_fetched_with_it() -> None:
    answers = {
        "/schemas/ids/1": schema_answer(PAGE, references=[{"name": "shop.Item", "subject": "a/item", "version": 3}]),
        "/subjects/a%2Fitem/versions/3": schema_answer(ITEM, subject="a/item", id=9, version=3),
    }
    with running_registry(answers) as server:
        schema = SchemaRegistry(server.url).schema(1)
    named: dict[str, Any] = {}
    fastavro.parse_schema(ITEM, named_schemas=named)
    whole = fastavro.parse_schema(PAGE, named_schemas=named)
    record = {"items": [{"sku": "a"}, {"sku": "b"}]}
    assert decode_avro(avro_of(record, whole), schema) == record


def test_an_unknown_id_is_asked_for_again_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_registry({}) as server:
        registry = SchemaRegistry(server.url)
        assert [reason_of(registry, 5).reason for _ in range(3)] == ["unknown_schema"] * 3
        assert len(server.asked) == 1
        monkeypatch.setattr(module, "_UNKNOWN_FOR", -1.0)
        server.answers = {"/schemas/ids/5": schema_answer(SCHEMA)}
        assert registry.schema(5)["name"] == PARSED["name"]


@pytest.mark.parametrize(
    "answer",
    [
        schema_answer({}, schemaType="PROTOBUF"),
        {"schema": "not json"},
        schema_answer({"type": "record"}),
        schema_answer("nowhere.Defined"),
        schema_answer(PAGE, references=[{"name": "x", "subject": "x", "version": 1}]),
    ],
)
def test_a_schema_that_is_not_avro_is_unmappable(answer: Any) -> None:
    with running_registry({"/schemas/ids/1": answer}) as server:
        found = reason_of(SchemaRegistry(server.url), 1)
    assert found.reason == "unsupported_schema"
    assert "schema 1" in found.detail


def test_user_and_password_are_sent() -> None:
    with running_registry({"/schemas/ids/1": schema_answer(SCHEMA)}, login=("ü", "p:w")) as server:
        assert SchemaRegistry(server.url, "ü", "p:w").schema(1)["name"] == "Search"
        for registry in (SchemaRegistry(server.url, "ü", "secret"), SchemaRegistry(server.url)):
            with pytest.raises(PrectrError, match=r"rejects the login \(HTTP 401\)") as raised:
                registry.schema(1)
            assert "secret" not in str(raised.value)


def test_a_registry_that_fails_for_a_moment_is_asked_again(
    no_sleep: tuple[list[float], Callable[[float], None]], caplog: pytest.LogCaptureFixture
) -> None:
    slept, sleep = no_sleep
    with caplog.at_level(logging.WARNING), running_registry({"/schemas/ids/1": schema_answer(SCHEMA)}) as server:
        server.failures += [503, 500, 429]
        assert SchemaRegistry(server.url, sleep=sleep).schema(1)["name"] == "Search"
        assert len(server.asked) == 4
    assert slept == [0.5, 1.0, 2.0]
    assert "HTTP 503" in caplog.text


def test_a_registry_that_does_not_answer_is_an_error(no_sleep: tuple[list[float], Callable[[float], None]]) -> None:
    with running_registry({}) as server:
        gone = server.url
    with pytest.raises(PrectrError, match=rf"{gone} does not answer \(.*[Cc]onnection refused"):
        SchemaRegistry(gone, sleep=no_sleep[1]).schema(1)
    assert len(no_sleep[0]) == 5


def test_another_server_is_an_error() -> None:
    with running_registry({"/schemas/ids/1": b"<html>"}) as server:
        with pytest.raises(PrectrError, match="not the answer of a schema registry"):
            SchemaRegistry(server.url).schema(1)
        server.failures.append(400)
        with pytest.raises(PrectrError, match="/schemas/ids/1: HTTP 400"):
            SchemaRegistry(server.url).schema(1)


@pytest.mark.parametrize("url", ["localhost:8081", "file:///etc/passwd", "ftp://host", "http://", ""])
def test_an_address_that_is_not_of_http_is_wrong_use(url: str) -> None:
    with pytest.raises(ConfigError):
        SchemaRegistry(url)


def test_an_address_with_a_password_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as raised:
        SchemaRegistry("http://user:secret@host")
    assert "secret" not in str(raised.value)
