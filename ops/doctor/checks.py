"""All checks of a live system, in the order in which one problem causes the next."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Final, cast

from prectr.ops.doctor.broker.clocks import check_clocks
from prectr.ops.doctor.broker.flow import check_flow
from prectr.ops.doctor.broker.groups import check_groups, check_settings, fetch_group_offsets
from prectr.ops.doctor.broker.newest_records import fetch_newest_records
from prectr.ops.doctor.broker.open_transactions import check_open_transactions
from prectr.ops.doctor.broker.rights import check_rights
from prectr.ops.doctor.broker.topic_checks import SnapshotTarget, check_system
from prectr.ops.doctor.findings import Finding, Severity
from prectr.ops.doctor.host.checkpoint import check_checkpoint
from prectr.ops.doctor.host.disk import check_disk
from prectr.ops.doctor.host.limits import check_process_limits
from prectr.ops.doctor.host.snapshots import check_snapshots
from prectr.ops.doctor.host.stores import check_stores
from prectr.ops.doctor.host.versions import check_versions
from prectr.state.errors import PrectrError
from prectr.stream.config import PipelineConfig
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, check_topics

DEADLINE: Final = 8.0
"""Seconds for all checks: whoever asks in an outage wants to read something within ten."""
_PATIENCE: Final = 3.0
"""Seconds to connect."""
_NO_ANSWER_ADVICE: Final = (
    "if that is a folder, its disk or network does not answer; else Kafka takes connections and answers nothing: see "
    "the logs of its brokers, and whether they are out of memory, disk or descriptors"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What to check; a folder that is None is skipped. config: the stages' settings as this command has them."""

    connection: Connection
    topics: Topics
    group_prefix: str
    config: PipelineConfig
    state_dir: Path | None = None
    run_dir: Path | None = None
    snapshots: SnapshotTarget | None = None


def run_checks(deployment: Deployment, deadline: float = DEADLINE) -> list[Finding]:
    """Run all checks.

    Whatever does not answer, such as a broker that takes connections only, or a folder on a network, is a finding.

    Args:
        deadline: seconds that the checks may take.
    """
    started = time.monotonic()
    progress = _Progress()
    # A call that never returns must not keep the process from ending.
    thread = Thread(target=_run, args=(deployment, progress), name="doctor", daemon=True)
    thread.start()
    thread.join(deadline)
    if not thread.is_alive():
        if progress.error is not None:
            raise progress.error
        return progress.findings
    observed = f"no answer in {time.monotonic() - started:.0f} s; the checks after it were skipped"
    return [*progress.findings, Finding(progress.step, "error", observed, _NO_ANSWER_ADVICE)]


class _Progress:
    """How far the checks have come.

    Attributes:
        step: what is being checked.
        error: what ended the checks; None while they run, and if they have succeeded.
    """

    def __init__(self) -> None:
        self.step = ""
        self.findings: list[Finding] = []
        self.error: Exception | None = None


def _run(deployment: Deployment, progress: _Progress) -> None:
    try:
        for finding in _checks(deployment, progress):
            progress.findings.append(finding)
    except Exception as error:  # noqa: BLE001 (raised again by the thread that waits for the checks)
        progress.error = error


def _checks(deployment: Deployment, progress: _Progress) -> Iterator[Finding]:
    topics, snapshots, run_dir = deployment.topics, deployment.snapshots, deployment.run_dir
    group_prefix = deployment.group_prefix
    progress.step = "libraries"
    yield from check_versions()
    progress.step = "disk"
    yield from check_disk(deployment.state_dir, run_dir, snapshots.url if snapshots else None)
    progress.step = "limits"
    yield from check_process_limits(deployment.state_dir, run_dir)
    progress.step = "broker"
    connection = replace(deployment.connection, connect_timeout=min(deployment.connection.connect_timeout, _PATIENCE))
    try:
        yield _check_cluster(connection)
        progress.step = "topics"
        yield from _merged_topic_findings(check_system(connection, topics, snapshots))
        try:
            partitions = check_topics(connection, topics)
        except PrectrError:
            # Reported by the findings of the topics.
            yield from check_checkpoint(run_dir, None)
            return
        progress.step = "rights"
        yield from _or_error("rights", check_rights(connection, topics, group_prefix))
        progress.step = "newest records"
        yield from _or_error("newest records", _check_newest(connection, topics, partitions))
        progress.step = "transactions"
        yield from check_open_transactions(connection, topics, partitions)
        progress.step = "groups"
        commits = fetch_group_offsets(connection, topics, group_prefix, partitions)
    except PrectrError as error:
        yield Finding(progress.step, "error", str(error), "checks that need the broker were skipped")
        yield from check_checkpoint(run_dir, None)
        return
    yield from _or_error("groups", check_groups(connection, group_prefix, commits))
    progress.step = "settings"
    yield from check_settings(deployment.config, commits)
    progress.step = "state"
    yield from check_stores(deployment.state_dir, commits, snapshots is not None)
    progress.step = "snapshots"
    yield from check_snapshots(snapshots, commits)
    progress.step = "checkpoint"
    yield from check_checkpoint(run_dir, commits)


def _check_newest(connection: Connection, topics: Topics, partitions: int) -> Iterator[Finding]:
    newest = fetch_newest_records(connection, topics, partitions)
    yield from check_clocks(newest, topics)
    yield from check_flow(newest, topics)


def _or_error(name: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings of a check; if the broker refuses it, that is a finding too, and the other checks go on."""
    try:
        yield from findings
    except PrectrError as error:
        yield Finding(name, "error", str(error), "this check was not completed")


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
    """The cluster at the bootstrap address."""
    cluster = connection.call_admin(lambda admin: admin.describe_cluster())
    brokers: Sequence[dict[str, object]] = cluster["brokers"]
    lowest = min(int(str(broker["broker_id"])) for broker in brokers)
    version = connection.call_admin(lambda admin: admin.get_broker_version_data(lowest)).broker_version
    text = ".".join(str(part) for part in version)
    observed = (
        f"Kafka {text} or newer at {connection.bootstrap}, {len(brokers)} broker(s), cluster {cluster['cluster_id']}"
    )
    if version < (2, 5):
        return Finding("broker", "error", observed, "exactly-once needs Kafka 2.5 or newer: upgrade the brokers")
    return Finding("broker", "ok", observed)
