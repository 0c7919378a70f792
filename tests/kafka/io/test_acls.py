"""The rights that docs/security.md lists for each command are enough for it, on a broker that refuses all else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    NewTopic,
    ResourcePattern,
    ResourceType,
)
from kafka.structs import OffsetAndMetadata

from testkit.command import prectr, write_log
from testkit.kafka_broker import Broker, kafka_home
from tests.kafka.foreign import CLICKS
from tests.kafka.live import Live
from tests.kafka.monitoring import MonitorProcess
from tests.kit.stages.events import SECOND, T, page
from tests.local_stack.tools import missing

ROOT: Final = Path(__file__).parents[3]
ADMIN: Final = "admin"
PASSWORD: Final = "secret"
LOGIN: Final[dict[str, Any]] = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": ADMIN,
    "sasl_plain_password": PASSWORD,
}


class Right(NamedTuple):
    """A row of the table: what a command may do with which resource."""

    command: str
    kind: ResourceType
    name: str
    operations: tuple[ACLOperation, ...]


def documented() -> list[Right]:
    text = (ROOT / "docs" / "security.md").read_text()
    section = text[text.index("## Access control lists") :]
    row = r"^\| `([a-z -]+)` \| (topic|group|transactional id|cluster) (?:`(.+?)`)? ?\| (.+) \|$"
    rows = re.findall(row, section, re.MULTILINE)
    return [
        Right(
            command,
            ResourceType[kind.upper().replace(" ", "_")],
            name or "kafka-cluster",
            tuple(ACLOperation[re.sub(r"(?<!^)(?=[A-Z])", "_", each).upper()] for each in operations.split(", ")),
        )
        for command, kind, name, operations in rows
    ]


def principal(command: str) -> str:
    return command.replace(" ", "-")


COMMANDS: Final = sorted({right.command for right in documented()})


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """A broker with an authorizer, a login for each command, and the documented rights."""
    home = kafka_home()
    if home is None:
        missing("no Kafka to test with")
        return
    broker = Broker(home, tmp_path / "kafka")
    properties = tmp_path / "kafka" / "server.properties"
    text = properties.read_text().replace("PLAINTEXT://127", "SASL_PLAINTEXT://127")
    logins = " ".join(f'user_{user}="{PASSWORD}"' for user in (ADMIN, *map(principal, COMMANDS)))
    properties.write_text(
        text + "sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n"
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT\n"
        "inter.broker.listener.name=SASL_PLAINTEXT\n"
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
        f"super.users=User:{ADMIN};User:ANONYMOUS\n"
        "listener.name.sasl_plaintext.plain.sasl.jaas.config="
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'username="{ADMIN}" password="{PASSWORD}" {logins};\n'
    )
    try:
        broker.start()
        grant(broker.address, documented())
        yield broker
    finally:
        broker.stop()


def grant(bootstrap: str, rights: list[Right]) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, **LOGIN)
    acls = [
        ACL(
            f"User:{principal(right.command)}",
            "*",
            operation,
            ACLPermissionType.ALLOW,
            ResourcePattern(
                right.kind,
                right.name.removesuffix("*"),
                ACLResourcePatternType.PREFIXED if right.name.endswith("*") else ACLResourcePatternType.LITERAL,
            ),
        )
        for right in rights
        for operation in right.operations
    ]
    admin.create_acls(acls)
    admin.close()


def create_foreign_topic(bootstrap: str) -> None:
    """A topic of another program, with one click."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, **LOGIN)
    admin.create_topics([NewTopic("shop-clicks", 1, 1)])
    admin.close()
    click = {"search": "r1", "visitor": "u1", "sku": "i1", "clicked_at": "2025-03-01T10:00:04Z"}
    producer = KafkaProducer(bootstrap_servers=bootstrap, **LOGIN)
    producer.send("shop-clicks", json.dumps(click).encode()).get(timeout=30)
    producer.close()


def reset_offsets(bootstrap: str) -> None:
    """As kafka-consumer-groups.sh does."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, **LOGIN)
    admin.alter_group_offsets("prectr-join", {TopicPartition("search-events", 0): OffsetAndMetadata(0, "", -1)})
    admin.close()


def client_config(folder: Path, command: str) -> Path:
    path = folder / f"{principal(command)}.toml"
    path.write_text(
        'security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\n'
        f'sasl_plain_username = "{principal(command)}"\nsasl_plain_password = "{PASSWORD}"\n'
    )
    return path


def test_each_command_does_its_work_with_its_rights_alone(guarded: Broker, tmp_path: Path) -> None:
    pages = [page(f"r{n}", f"u{n}", T + n * 60 * SECOND) for n in range(20)]
    log = write_log(tmp_path / "log.jsonl", [*pages, b'{"type": "impression"}'])

    def run(command: str, *arguments: str | Path) -> str:
        flags = ["--bootstrap", guarded.address, "--client-config", client_config(tmp_path, command)]
        done = prectr(*command.split(), *arguments, *flags)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        # A right that is missing where it is asked for without need is a warning.
        assert "uthorization" not in done.stdout + done.stderr, command
        return done.stdout

    run("topics create", "--partitions", "2")
    run("topics check")
    run("load", log)
    run("export", "--out", tmp_path / "events")
    (tmp_path / "corrected.jsonl").write_bytes(page("r-corrected", "u1", T + 1200 * SECOND))
    run("dlq retry", "--yes", "--file", tmp_path / "corrected.jsonl")
    create_foreign_topic(guarded.address)
    (tmp_path / "clicks.toml").write_text(CLICKS)
    run("ingest", f"shop-clicks={tmp_path / 'clicks.toml'}", "--until-end")
    run("stream", "--state-dir", tmp_path / "state", "--until-end", "--flush")
    run("train", "--run-dir", tmp_path / "run", "--model", "lr", "--until-end", "--flush")
    assert (tmp_path / "run" / "report.json").exists()
    run("examples", "--until-end", "--out", tmp_path / "examples.jsonl")
    assert len((tmp_path / "examples.jsonl").read_text().splitlines()) == 21
    run("dlq list", "--json", tmp_path / "summary.json")
    assert json.loads((tmp_path / "summary.json").read_text())["dead_letters"] == 1
    run("doctor", "--state-dir", tmp_path / "state", "--run-dir", tmp_path / "run")
    reset_offsets(guarded.address)
    assert "are committed" in run("state restore-offsets", "--state-dir", tmp_path / "state", "--execute")
    live = Live(guarded.address, "", tmp_path)
    monitor = MonitorProcess(live)
    try:
        monitor.start("--client-config", str(client_config(tmp_path, "monitor")), "--group-prefix", "prectr-")
        monitor.wait_for_pages(21)
    finally:
        live.kill_all()


@pytest.mark.parametrize(
    ("login", "command", "missing_right"),
    [
        ("dlq list", ["load", "log.jsonl"], "Describe, Read and Write on the topic"),
        ("load", ["examples", "--until-end", "--out", "e.jsonl"], "Describe, Read and Write on the topic"),
        ("train", ["stream", "--state-dir", "state", "--until-end"], "Describe and Read on the group"),
        ("monitor", ["train", "--run-dir", "run", "--until-end"], "Describe, Read and Write on the topic"),
    ],
)
def test_a_command_without_its_rights_ends_with_the_ones_that_it_needs(
    guarded: Broker, login: str, command: list[str], missing_right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log.jsonl", [page("r1", "u1", T)])
    flags = ["--bootstrap", guarded.address, "--client-config"]
    created = prectr("topics", "create", *flags, client_config(tmp_path, "topics create"))
    assert created.returncode == 0, created.stderr
    refused = prectr(*command, *flags, client_config(tmp_path, login))
    assert refused.returncode == 1
    assert f"an ACL must allow this client {missing_right}" in refused.stderr.splitlines()[-1]
