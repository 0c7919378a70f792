"""All checks of a live system, in the order in which one problem causes the next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from prectr.ops.doctor.checkpoint import check_checkpoint
from prectr.ops.doctor.clocks import check_clocks
from prectr.ops.doctor.disk import check_disk
from prectr.ops.doctor.findings import Finding, Severity
from prectr.ops.doctor.groups import check_groups, fetch_group_offsets
from prectr.ops.doctor.open_transactions import check_open_transactions
from prectr.ops.doctor.snapshots import check_snapshots
from prectr.ops.doctor.stores import check_stores
from prectr.ops.doctor.topic_checks import SnapshotTarget, check_system
from prectr.ops.doctor.versions import check_versions
from prectr.state.errors import PrectrError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, check_topics


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What to check; a folder that is None is skipped."""

    connection: Connection
    topics: Topics
    group_prefix: str
    state_dir: Path | None = None
    run_dir: Path | None = None
    snapshots: SnapshotTarget | None = None


def run_checks(deployment: Deployment) -> list[Finding]:
    """Run all checks."""
    return list(_run(deployment))


def _run(deployment: Deployment) -> Iterator[Finding]:
    yield from check_versions()
    yield from check_disk(
        deployment.state_dir, deployment.run_dir, deployment.snapshots.url if deployment.snapshots else None
    )
    try:
        cluster = _check_cluster(deployment.connection)
    except PrectrError as error:
        yield Finding("broker", "error", str(error), "checks that need the broker were skipped")
        yield from check_checkpoint(deployment.run_dir, None)
        return
    yield cluster
    yield from _merged_topic_findings(check_system(deployment.connection, deployment.topics, deployment.snapshots))
    try:
        partitions = check_topics(deployment.connection, deployment.topics)
    except PrectrError:
        # Reported by the findings of the topics.
        yield from check_checkpoint(deployment.run_dir, None)
        return
    yield from check_clocks(deployment.connection, deployment.topics, partitions)
    yield from check_open_transactions(deployment.connection, deployment.topics, partitions)
    commits = fetch_group_offsets(deployment.connection, deployment.topics, deployment.group_prefix, partitions)
    yield from check_groups(deployment.connection, deployment.group_prefix, commits)
    yield from check_stores(deployment.state_dir, commits, deployment.snapshots is not None)
    yield from check_snapshots(deployment.snapshots, commits)
    yield from check_checkpoint(deployment.run_dir, commits)


def _merged_topic_findings(found: Sequence[Finding]) -> Iterator[Finding]:
    """The findings of `prectr topics check` that need attention, merged where they are equal."""
    merged: dict[tuple[str, str, str, str], list[str]] = {}
    for finding in found:
        if finding.severity != "ok":
            topic, _, setting = finding.name.partition(" ")
            # The advice on a setting names its topic, so it is not merged.
            merged.setdefault((finding.severity, setting, finding.observed, finding.advice), []).append(topic)
    healthy = sum(finding.severity == "ok" for finding in found)
    yield Finding("topics", "ok", f"{healthy} of {len(found)} checks passed; see prectr topics check")
    for (severity, setting, observed, advice), topics in merged.items():
        yield Finding(" ".join([", ".join(topics), setting]).strip(), cast("Severity", severity), observed, advice)


def _check_cluster(connection: Connection) -> Finding:
    """The cluster at the bootstrap address, with a short timeout."""
    impatient = replace(connection, connect_timeout=min(connection.connect_timeout, 5.0))
    cluster = impatient.call_admin(lambda admin: admin.describe_cluster())
    brokers: Sequence[dict[str, object]] = cluster["brokers"]
    lowest = min(int(str(broker["broker_id"])) for broker in brokers)
    version = impatient.call_admin(lambda admin: admin.get_broker_version_data(lowest)).broker_version
    text = ".".join(str(part) for part in version)
    observed = (
        f"Kafka {text} or newer at {connection.bootstrap}, {len(brokers)} broker(s), cluster {cluster['cluster_id']}"
    )
    if version < (2, 5):
        return Finding("broker", "error", observed, "exactly-once needs Kafka 2.5 or newer: upgrade the brokers")
    return Finding("broker", "ok", observed)
