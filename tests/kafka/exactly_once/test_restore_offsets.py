"""Offsets of the groups that another program has reset or deleted: refused, shown, restored, and nothing is lost."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from testkit.command import prectr
from tests.kafka.live import Live, RunResult, replay_log
from tests.kafka.monitoring import wait_for
from tests.kafka.worlds import adversarial

pytestmark = pytest.mark.usefixtures("broker")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adversarial(tmp_path_factory.mktemp("world"), pages=2_000, seed=23)


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return replay_log(tmp_path_factory.mktemp("expected"), world)


def partitions_of_groups(live: Live) -> dict[str, list[TopicPartition]]:
    topics = Topics(live.prefix)
    return {
        f"{live.prefix}{stage}": [TopicPartition(name, number) for number in range(live.partitions)]
        for stage, name in (("join", topics.events), ("aggregate", topics.joined_pages))
    }


def offsets(live: Live) -> dict[TopicPartition, tuple[int, str]]:
    groups = partitions_of_groups(live)
    found = Connection(live.bootstrap).call_admin(lambda admin: admin.list_group_offsets(list(groups)))
    return {
        partition: (commit.offset, commit.metadata)
        for group in groups
        for partition, commit in found[group].items()
        if commit.offset >= 0
    }


def reset(live: Live) -> None:
    """As kafka-consumer-groups.sh --reset-offsets --to-earliest does."""
    for group, partitions in partitions_of_groups(live).items():
        earliest = {partition: OffsetAndMetadata(0, "", -1) for partition in partitions}
        Connection(live.bootstrap).call_admin(
            lambda admin, group=group, earliest=earliest: admin.alter_group_offsets(group, earliest)  # type: ignore[misc]
        )


def delete(live: Live) -> None:
    """As the broker does after offsets.retention.minutes."""
    for group in partitions_of_groups(live):
        Connection(live.bootstrap).call_admin(lambda admin, group=group: admin.delete_groups([group]))  # type: ignore[misc]


def restore(live: Live, *flags: str | Path, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    out = live.folder / "plan.json"
    system = ["--bootstrap", live.bootstrap, "--topic-prefix", live.prefix, "--group-prefix", live.prefix]
    done = prectr("state", "restore-offsets", *system, *flags, "--json", out)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(out.read_bytes()) if code == 0 else [], done.stdout + done.stderr


@pytest.mark.several
@pytest.mark.parametrize("damage", [reset, delete], ids=["reset", "deleted"])
@pytest.mark.parametrize("end", ["stopped", "killed", "killed, state lost"])
def test_restored_offsets_go_on_as_if_nothing_had_happened(
    live: Live, world: Path, expected: RunResult, damage: Any, end: str
) -> None:
    live.create()
    live.load(world)
    if end == "stopped":
        process = live.start_stream("1")
        wait_for(lambda: len(offsets(live)) == 2 * live.partitions)
        live.request_stop(process)
        live.wait_for_end(process)
    else:
        process = live.start_stream("1", crash=("after_commit", 14))
        assert process.wait(live.timeout) == -signal.SIGKILL, live.stderr_of(process)
    if end == "killed, state lost":
        shutil.rmtree(live.state_dir("1"))
    before = wait_for_no_members(live)
    assert before
    damage(live)

    state = ["--state-dir", live.state_dir("1")]
    refused = live.start_stream("1", "--until-end")
    assert "prectr state restore-offsets" in live.wait_for_end(refused, code=1)
    wait_for_no_members(live)
    damaged = offsets(live)
    plan, said = restore(live, *state)
    assert "nothing was changed: add --execute" in said
    assert offsets(live) == damaged
    assert {task["task"] for task in plan if task["offset"] is not None} == {
        f"{'join' if partition.topic.endswith('search-events') else 'aggregate'}-{partition.partition}"
        for partition in before
    }
    _, said = restore(live, *state, "--execute")
    assert "start the stream workers again" in said
    restored = offsets(live)
    assert restored.keys() == before.keys()
    for partition, (offset, metadata) in restored.items():
        committed_offset, committed_metadata = before[partition]
        assert offset <= committed_offset
        if end == "stopped":
            assert offset == committed_offset
        for name in (1, 2, 3):
            # start_offset, emitted, sequences
            assert json.loads(metadata)[name] == json.loads(committed_metadata)[name]
    assert "there is nothing to restore" in restore(live, *state)[1]

    live.stream(2, "--flush")
    assert live.train_and_read("--flush") == expected


def wait_for_no_members(live: Live) -> dict[TopicPartition, tuple[int, str]]:
    """Wait until a killed worker's session has expired; returns the offsets."""
    groups = list(partitions_of_groups(live))
    while any(
        found["members"]
        for found in Connection(live.bootstrap).call_admin(lambda admin: admin.describe_groups(groups)).values()
    ):
        pass
    return offsets(live)


def test_running_workers_are_not_disturbed(live: Live, world: Path) -> None:
    live.create()
    live.load(world)
    stream = live.start_stream("1")
    live.wait_for_log(stream, "join task 0: open")
    _, said = restore(live, "--state-dir", live.state_dir("1"), code=1)
    assert "stop all stream workers" in said
    live.request_stop(stream)
    live.wait_for_end(stream)
