"""Offsets of the groups that somebody else overwrites, and the way back."""

import re

from kafka import TopicPartition
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata

from testkit.command import prectr
from tests.faults.injection.restart import EXIT_TIMEOUT, Injected, await_reports, restart
from tests.faults.system import SESSION_SECONDS, STREAMS, LiveSystem


def offsets_reset(system: LiveSystem) -> Injected:
    """As a console consumer of the same group, or `kafka-consumer-groups.sh --reset-offsets`, does."""
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.start_recovery_timer(STREAMS[0])
    graceful = system.rng.random() < 0.5
    for name in STREAMS:
        if graceful:
            process = system.running.pop(name)
            system.live.request_stop(process)
            system.live.wait_for_end(process)
        else:
            system.kill(name)
    groups = {
        f"{system.live.prefix}{stage}": [TopicPartition(topic, number) for number in range(system.live.partitions)]
        for stage, topic in (("join", system.topics.events), ("aggregate", system.topics.joined_pages))
    }
    _wait_for_no_members(system, list(groups))
    chosen = system.rng.sample(sorted(groups), system.rng.randint(1, 2))
    offset = system.rng.randint(0, 5)
    for group in chosen:
        offsets = {partition: OffsetAndMetadata(offset, "", -1) for partition in groups[group]}
        if not system.wait_until(lambda group=group, offsets=offsets: _are_set(system, group, offsets), EXIT_TIMEOUT):
            raise AssertionError(f"the broker does not set the offsets of {group}")
    for name in STREAMS:
        system.start(name)
    for name in STREAMS:
        last = system.wait_for_end(name, 1, EXIT_TIMEOUT).strip().splitlines()[-1]
        if not re.search(r"was not made by this program.*prectr state restore-offsets", last):
            raise AssertionError(f"{name} ended, and did not name the way back: {last}")
    await_reports(system)
    _wait_for_no_members(system, list(groups))
    flags = ["--bootstrap", system.live.bootstrap, "--topic-prefix", system.live.prefix]
    flags += ["--group-prefix", system.live.prefix, "--execute"]
    for name in STREAMS:
        flags += ["--state-dir", str(system.state_dir(name))]
    if system.snapshots is not None:
        flags += ["--snapshots", str(system.snapshots)]
    restored = prectr("state", "restore-offsets", *flags)
    if restored.returncode:
        raise AssertionError(f"the offsets could not be restored: {restored.stderr}")
    restarted = "".join(restart(system, name) for name in STREAMS)
    end = "stopped" if graceful else "killed"
    names = " and ".join(group.removeprefix(system.live.prefix) for group in chosen)
    return Injected(
        f"the stream processes are {end}, the offsets of {names} are set to {offset}: both refuse them, "
        f"restore-offsets brings them back{restarted}",
        recovery,
    )


def _wait_for_no_members(system: LiveSystem, groups: list[str]) -> None:
    """A killed process is a member until its session has expired."""

    def are_empty() -> bool:
        found = system.connection.call_admin(lambda admin: admin.describe_groups(groups))
        return not any(group["members"] for group in found.values())

    if not system.wait_until(are_empty, 20 + 3 * SESSION_SECONDS):
        raise AssertionError("the groups still have members")


def _are_set(system: LiveSystem, group: str, offsets: dict[TopicPartition, OffsetAndMetadata]) -> bool:
    """A broker that has just started may refuse it for some partitions, or for all."""
    results = system.connection.call_admin(lambda admin: admin.alter_group_offsets(group, offsets))
    return all(error is NoError for error in results.values())
