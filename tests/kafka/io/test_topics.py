"""`prectr topics` on a real broker: created, created again, and checked."""

import json
from pathlib import Path
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType

from prectr.stream.kafka.client.client import Connection
from testkit.command import prectr
from tests.kafka.live import Live

TOPICS = ["search-events", "joined-pages", "training-examples", "dead-letters", "model-quality"]


def given(live: Live, *flags: str | Path) -> list[str | Path]:
    return ["--bootstrap", live.bootstrap, "--topic-prefix", live.prefix, *flags]


def checked(live: Live, *flags: str, code: int = 0) -> dict[str, dict[str, Any]]:
    out = live.folder / "findings.json"
    done = prectr("topics", "check", *given(live, "--json", out, *flags))
    assert done.returncode == code, done.stdout + done.stderr
    findings = json.loads(out.read_bytes())
    assert sum(line.startswith(("ok ", "warning ", "error ")) for line in done.stdout.splitlines()) == len(findings)
    return {finding["name"].removeprefix(live.prefix): finding for finding in findings}


def test_topics_are_created_once_and_then_exist(live: Live, tmp_path: Path) -> None:
    for created, verb in ((True, "created"), (False, "exists")):
        done = prectr("topics", "create", *given(live, "--partitions", "2", "--json", tmp_path / "created.json"))
        assert done.stdout.splitlines() == [
            f"{live.prefix}{name}: {verb}, 2 partitions, replication factor 1" for name in TOPICS
        ]
        assert json.loads((tmp_path / "created.json").read_bytes()) == [
            {"topic": f"{live.prefix}{name}", "created": created, "partitions": 2, "replication": 1} for name in TOPICS
        ]


def test_more_replicas_than_brokers_is_reported_with_the_brokers_error(live: Live) -> None:
    done = prectr("topics", "create", *given(live, "--replication", "3"))
    assert done.returncode == 1
    assert "only 1 broker(s) are registered" in done.stderr
    assert "CreateTopicsRequest" not in done.stderr


def test_what_create_makes_passes_the_check_and_what_is_changed_does_not(live: Live) -> None:
    missing = checked(live, code=1)
    assert {name for name, finding in missing.items() if finding["severity"] == "error"} == set(TOPICS)
    live.create()
    made = checked(live, "--snapshots", "/mnt/snapshots")
    assert not any(finding["severity"] == "error" for finding in made.values())
    assert made["search-events retention"]["severity"] == "ok"
    assert made["dead-letters max.message.bytes"]["observed"] == "12 MiB"
    assert made["search-events replication"]["severity"] == "warning"
    assert "--snapshots" in checked(live)["joined-pages retention"]["advice"]

    events = f"{live.prefix}search-events"
    changed = ConfigResource(
        ConfigResourceType.TOPIC, events, configs={"message.timestamp.type": "CreateTime", "max.message.bytes": "1000"}
    )
    Connection(live.bootstrap).call_admin(lambda admin: admin.alter_configs([changed]))
    found = checked(live, code=1)
    assert found["search-events message.timestamp.type"]["severity"] == "warning"
    assert found["search-events max.message.bytes"]["severity"] == "error"
    assert f"--entity-name {events} --add-config" in found["search-events max.message.bytes"]["advice"]
