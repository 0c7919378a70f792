"""All checks of a live system, in the order in which one trouble explains the next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from prectr.ops.doctor.checkpoint import check_checkpoint
from prectr.ops.doctor.clocks import check_clocks
from prectr.ops.doctor.disk import check_disk
from prectr.ops.doctor.findings import Finding, Level
from prectr.ops.doctor.groups import check_groups, read_commits
from prectr.ops.doctor.snapshots import check_snapshots
from prectr.ops.doctor.stores import check_stores
from prectr.ops.doctor.topic_checks import Snapshots, check_system
from prectr.ops.doctor.versions import check_versions
from prectr.state.errors import PrectrError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, check_topics


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """What is to be looked over; folders that are not named are left out."""

    connection: Connection
    topics: Topics
    group_prefix: str
    state_dir: Path | None = None
    run_dir: Path | None = None
    snapshots: Snapshots | None = None


def examine(patient: Patient) -> list[Finding]:
    """Look the system over."""
    return list(_findings(patient))


def _findings(patient: Patient) -> Iterator[Finding]:
    yield from check_versions()
    yield from check_disk(patient.state_dir, patient.run_dir, patient.snapshots.url if patient.snapshots else None)
    try:
        cluster = _cluster(patient.connection)
    except PrectrError as error:
        yield Finding("broker", "error", str(error), "what needs the broker was left out")
        yield from check_checkpoint(patient.run_dir, None)
        return
    yield cluster
    yield from _topics(check_system(patient.connection, patient.topics, patient.snapshots))
    try:
        partitions = check_topics(patient.connection, patient.topics)
    except PrectrError:
        # The topics' own findings have said it.
        yield from check_checkpoint(patient.run_dir, None)
        return
    yield from check_clocks(patient.connection, patient.topics, partitions)
    commits = read_commits(patient.connection, patient.topics, patient.group_prefix, partitions)
    yield from check_groups(patient.connection, patient.group_prefix, commits)
    yield from check_stores(patient.state_dir, commits, patient.snapshots is not None)
    yield from check_snapshots(patient.snapshots, commits)
    yield from check_checkpoint(patient.run_dir, commits)


def _topics(found: Sequence[Finding]) -> Iterator[Finding]:
    """Of the many findings of `prectr topics check`, what asks for something, equal advice once."""
    asks: dict[tuple[str, str, str, str], list[str]] = {}
    for finding in found:
        if finding.level != "ok":
            topic, _, what = finding.name.partition(" ")
            # The advice of a setting names its topic, and so stays with it.
            asks.setdefault((finding.level, what, finding.seen, finding.advice), []).append(topic)
    well = sum(finding.level == "ok" for finding in found)
    yield Finding("topics", "ok", f"{well} of {len(found)} checks are well; prectr topics check shows all")
    for (level, what, seen, advice), topics in asks.items():
        yield Finding(" ".join([", ".join(topics), what]).strip(), cast("Level", level), seen, advice)


def _cluster(connection: Connection) -> Finding:
    """Who answers at the address, asked without patience."""
    asked = replace(connection, wait=min(connection.wait, 5.0))
    cluster = asked.ask(lambda admin: admin.describe_cluster())
    brokers: Sequence[dict[str, object]] = cluster["brokers"]
    lowest = min(int(str(broker["broker_id"])) for broker in brokers)
    version = asked.ask(lambda admin: admin.get_broker_version_data(lowest)).broker_version
    text = ".".join(str(part) for part in version)
    seen = f"Kafka {text} or newer at {connection.bootstrap}, {len(brokers)} broker(s), cluster {cluster['cluster_id']}"
    if version < (2, 5):
        return Finding("broker", "error", seen, "exactly once needs Kafka 2.5 or newer: upgrade the brokers")
    return Finding("broker", "ok", seen)
