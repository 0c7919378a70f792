"""Promises of `prectr ingest`: wrong use is told before a broker is asked."""

from pathlib import Path

import pytest

from prectr.ops.cli.foreign_topics import foreign_topics
from prectr.state.errors import UsageError
from testkit.command import prectr


def test_formats_and_schemas_are_of_one_topic_or_all() -> None:
    topics = foreign_topics(["a=m.toml", "b=n.toml"], ["avro", "b=json"], ["a=a.avsc"])
    assert [(each.name, each.mapping, each.value_format, each.schema) for each in topics] == [
        ("a", Path("m.toml"), "avro", Path("a.avsc")),
        ("b", Path("n.toml"), "json", None),
    ]
    again = foreign_topics(["a=m.toml", "b=n.toml"], ["b=avro", "json"], [])
    assert [each.value_format for each in again] == ["json", "avro"]


@pytest.mark.parametrize(
    ("inputs", "formats", "message"),
    [
        (["pages"], [], "TOPIC=MAPPING"),
        (["=m.toml"], [], "TOPIC=MAPPING"),
        (["a=m.toml", "a=n.toml"], [], "named twice"),
        (["a=m.toml"], ["xml"], "json, avro, avro-confluent"),
        (["a=m.toml"], ["b=json"], "not one of those"),
    ],
)
def test_wrong_use_is_told(inputs: list[str], formats: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        foreign_topics(inputs, formats, [])


def test_a_wrong_mapping_is_told_before_a_broker_is_asked(tmp_path: Path) -> None:
    mapping = tmp_path / "m.toml"
    mapping.write_text(
        '[page]\nrequest_id = "id["\nts = "at"\nuser_id = "u"\n[page.items]\neach = "i"\nitem_id = "i"\n'
    )
    done = prectr("ingest", f"a={mapping}", "--bootstrap", "localhost:1")
    assert done.returncode == 2
    assert "page.request_id" in done.stderr
    assert "Traceback" not in done.stderr
