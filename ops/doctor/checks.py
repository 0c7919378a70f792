"""All checks of a live system, in the order in which one problem causes the next."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Final, cast

from prectr.ops.doctor.broker.arrivals import check_arrivals
from prectr.ops.doctor.broker.clocks import check_clocks
from prectr.ops.doctor.broker.flow import check_flow
from prectr.ops.doctor.broker.groups import GroupOffsets, check_groups, check_settings, fetch_group_offsets
from prectr.ops.doctor.broker.listener import connection_advice
from prectr.ops.doctor.broker.newest_records import NewestRecords, fetch_newest_records
from prectr.ops.doctor.broker.open_transactions import check_open_transactions
from prectr.ops.doctor.broker.progress import check_next_examples, check_progress
from prectr.ops.doctor.broker.rights import check_rights
from prectr.ops.doctor.broker.topic_checks import SnapshotTarget, check_system
from prectr.ops.doctor.findings import Finding, Severity
from prectr.ops.doctor.host.checkpoint import check_checkpoint, trainer_positions
from prectr.ops.doctor.host.disk import check_disk
from prectr.ops.doctor.host.limits import check_process_limits
from prectr.ops.doctor.host.processes import check_logs, check_targets
from prectr.ops.doctor.host.snapshots import check_snapshots
from prectr.ops.doctor.host.stores import check_stores
from prectr.ops.doctor.host.versions import check_versions
from prectr.state.errors import BrokerUnavailableError, PrectrError, Remedy
from prectr.stream.config import PipelineConfig
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, check_topics

DEADLINE: Final = 8.0
"""Seconds for all checks: whoever asks in an outage wants to read something within ten."""
_PATIENCE: Final = 3.0
"""Seconds to connect."""
_FIRST_BROKER_STEP: Final = "broker"
_MACHINE_STEPS: Final = ("libraries", "disk", "limits", "logs", "processes", "state", "snapshots", "checkpoint")
"""Steps that a broker cannot hold up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What to check; a folder that is None is skipped. config: the stages' settings as this command has
    them; is_config_given: whether it was given any.
    """

    connection: Connection
    topics: Topics
    group_prefix: str
    config: PipelineConfig
    is_config_given: bool = True
    state_dir: Path | None = None
    run_dir: Path | None = None
    snapshots: SnapshotTarget | None = None


def run_checks(deployment: Deployment, deadline: float = DEADLINE) -> list[Finding]:
    """Run all checks.

    Those of this machine and those of the system run side by side: a disk that hangs does not hide a broker that is
    away. Whatever does not end in time is a finding, and so are the checks after it.

    Args:
        deadline: seconds that the checks may take.
    """
    ends_at = time.monotonic() + deadline
    lanes = [_Lane("machine", deployment, _machine_checks), _Lane("system", deployment, _system_checks)]
    findings: list[Finding] = []
    for lane in lanes:
        lane.join(max(0.0, ends_at - time.monotonic()))
        findings += lane.findings
        if lane.is_alive():
            findings.append(_unfinished(lane.step, deadline, deployment.connection.bootstrap))
        elif lane.error is not None:
            raise lane.error
    return findings


class _Lane(Thread):
    """Checks that run one after the other.

    Attributes:
        step: what is being checked.
        error: what ended the checks; None while they run, and if they have succeeded.
    """

    def __init__(
        self, name: str, deployment: Deployment, checks: "Callable[[Deployment, _Lane], Iterator[Finding]]"
    ) -> None:
        # A call that never returns must not keep the process from ending.
        super().__init__(name=name, daemon=True)
        self.step = ""
        self.findings: list[Finding] = []
        self.error: Exception | None = None
        self._deployment, self._checks = deployment, checks
        self.start()

    def run(self) -> None:
        """Collect the findings."""
        try:
            for finding in self._checks(self._deployment, self):
                self.findings.append(finding)
        except Exception as error:  # noqa: BLE001 (raised again by the thread that waits for the checks)
            self.error = error


def _unfinished(step: str, deadline: float, bootstrap: str) -> Finding:
    """The finding about a check that did not end. It is no error of the thing that is checked, which may be well."""
    observed = f"took longer than {deadline:g} s, and the checks after it were skipped"
    if step in _MACHINE_STEPS:
        advice = "the disk or network of that folder does not answer, or this machine is busy: check again"
        return Finding(step, "warning", f"not checked: {observed}", advice)
    is_listening, advice = connection_advice(bootstrap)
    if not is_listening:
        return Finding(step, "error", observed, advice)
    if step == _FIRST_BROKER_STEP:
        return Finding(step, "error", f"no answer from Kafka: {observed}", advice)
    advice = f"this machine or the broker is busy: check again. If it stays so, {advice}"
    return Finding(step, "warning", f"not checked: {observed}", advice)


def _machine_checks(deployment: Deployment, lane: _Lane) -> Iterator[Finding]:
    snapshots, run_dir, state_dir = deployment.snapshots, deployment.run_dir, deployment.state_dir
    lane.step = "libraries"
    yield from check_versions()
    lane.step = "disk"
    yield from check_disk(state_dir, run_dir, snapshots.url if snapshots else None)
    lane.step = "limits"
    yield from check_process_limits(state_dir, run_dir)
    lane.step = "logs"
    yield from check_logs(run_dir, state_dir)


def _system_checks(deployment: Deployment, lane: _Lane) -> Iterator[Finding]:
    given = deployment.connection
    connection = replace(given, connect_timeout=min(given.connect_timeout, _PATIENCE))
    commits: GroupOffsets | None = None
    try:
        commits = yield from _broker_checks(connection, deployment, lane)
    except BrokerUnavailableError as error:
        advice = f"{connection_advice(connection.bootstrap)[1]}; checks that need the broker were skipped"
        observed = str(error) if Remedy.ADVERTISED_LISTENERS in error.remedies else error.message
        yield Finding(lane.step, "error", observed, advice)
    except PrectrError as error:
        yield Finding(lane.step, "error", str(error), "checks that need the broker were skipped")
    if commits is None:
        yield from check_checkpoint(deployment.run_dir, None)
    else:
        yield from _position_checks(connection, deployment, lane, commits)


def _broker_checks(
    connection: Connection, deployment: Deployment, lane: _Lane
) -> Generator[Finding, None, GroupOffsets | None]:
    """Check what lies at the brokers; return the commits, or None without the topics.

    Raises:
        PrectrError: the broker does not answer, or refuses what all the other checks need.
    """
    topics = deployment.topics
    lane.step = _FIRST_BROKER_STEP
    yield _check_cluster(connection)
    lane.step = "topics"
    yield from _merged_topic_findings(check_system(connection, topics, deployment.snapshots))
    try:
        partitions = check_topics(connection, topics)
    except PrectrError:
        # Reported by the findings of the topics.
        return None
    lane.step = "newest records"
    newest: NewestRecords = {}
    try:
        newest = fetch_newest_records(connection, topics, partitions)
    except PrectrError as error:
        yield Finding(lane.step, "error", str(error), "this check was not completed")
    yield from check_clocks(newest, topics)
    yield from check_arrivals(newest, topics, partitions)
    yield from check_flow(newest, topics)
    lane.step = "groups"
    return fetch_group_offsets(connection, topics, deployment.group_prefix, partitions, newest)


def _position_checks(
    connection: Connection, deployment: Deployment, lane: _Lane, commits: GroupOffsets
) -> Iterator[Finding]:
    """Compare groups, processes and folders with the log."""
    topics, snapshots, run_dir = deployment.topics, deployment.snapshots, deployment.run_dir
    yield from _or_error("groups", check_groups(connection, deployment.group_prefix, commits))
    lane.step = "processes"
    positions = trainer_positions(run_dir)
    yield from check_targets(run_dir, waits=bool(commits.unread or commits.unread_examples(positions)))
    lane.step = "settings"
    yield from check_settings(deployment.config, commits, is_given=deployment.is_config_given)
    lane.step = "state"
    yield from check_stores(deployment.state_dir, commits, snapshots is not None)
    lane.step = "snapshots"
    yield from check_snapshots(snapshots, commits, deployment.state_dir)
    lane.step = "checkpoint"
    yield from check_checkpoint(run_dir, commits)
    # Last: they seldom find anything, or take seconds where something waits.
    lane.step = "transactions"
    yield from check_open_transactions(connection, topics, len(commits.examples))
    lane.step = "rights"
    yield from _or_error("rights", check_rights(connection, topics, deployment.group_prefix))
    lane.step = "next records"
    yield from _or_error("next records", check_progress(connection, topics, deployment.group_prefix, commits))
    yield from _or_error("next records", check_next_examples(connection, topics, positions, commits))


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
