"""Checks topics and broker settings: findings, each with advice."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prectr.ops.doctor.findings import Finding, Severity
from prectr.stream.events.contract import MAX_EVENT_BYTES
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import SystemHealth, TopicHealth, Topics, describe_system

_RECORD_OVERHEAD: Final = 64 << 10
"""Bytes for the key, headers and framing of a record, beside its value."""
_TRANSACTION_TIMEOUT_MS: Final = 60_000
"""Transaction timeout of the tasks."""
_MIN_METADATA_BYTES: Final = 4_096
_DAY_MS: Final = 86_400_000
_MIN_OFFSETS_RETENTION_MINUTES: Final = 7 * 1_440
"""A week: the default of Kafka brokers."""
_ERROR_INTERVALS: Final = 2
_WARNING_INTERVALS: Final = 10
"""Retention in snapshot intervals: below the first an error, below the second a warning."""


@dataclass(frozen=True, slots=True)
class SnapshotTarget:
    """Where snapshots are stored, and the seconds between two of them."""

    url: str
    interval: float


def check_system(connection: Connection, topics: Topics, snapshots: SnapshotTarget | None = None) -> list[Finding]:
    """Check the topics and settings of a system; raises PrectrError if the broker does not respond."""
    return evaluate(describe_system(connection, topics), topics, connection.bootstrap, snapshots)


def evaluate(health: SystemHealth, topics: Topics, bootstrap: str, snapshots: SnapshotTarget | None) -> list[Finding]:
    """Check the settings that the broker reports. bootstrap: for the commands in the advice."""
    findings: list[Finding] = []
    for name in topics.all:
        topic = health.topics.get(name)
        if topic is None:
            prefix = f" --topic-prefix {topics.prefix}" if topics.prefix else ""
            events = health.topics.get(topics.events)
            partitions = events.partitions if events else 4
            advice = f"prectr topics create --bootstrap {bootstrap} --partitions {partitions}{prefix}"
            findings.append(Finding(name, "error", "the topic does not exist", advice))
            continue
        findings += _TopicCheck(name, topic, topics, health, bootstrap, snapshots).findings()
    findings += _broker(health.settings, bootstrap)
    return findings


@dataclass(frozen=True, slots=True)
class _TopicCheck:
    """The checks of one topic."""

    name: str
    health: TopicHealth
    topics: Topics
    system: SystemHealth
    bootstrap: str
    snapshots: SnapshotTarget | None

    def findings(self) -> Iterator[Finding]:
        yield self._partitions()
        yield self._replication()
        settings = self.health.settings
        if settings is None:
            yield self._finding(
                "settings",
                "warning",
                "the broker does not return them",
                "grant the user of --client-config DescribeConfigs on the topic",
            )
            return
        yield self._timestamps(settings)
        yield self._size(settings)
        yield self._cleanup(settings)
        if self.name != self.topics.quality:
            yield self._retention(settings)
        yield self._min_insync_replicas(settings)

    def _finding(self, setting: str, severity: Severity, observed: str, advice: str = "") -> Finding:
        return Finding(f"{self.name} {setting}", severity, observed, advice)

    def _alter(self, setting: str) -> str:
        return (
            f"kafka-configs.sh --bootstrap-server {self.bootstrap} --alter --entity-type topics --entity-name "
            f"{self.name} --add-config {setting}"
        )

    def _partitions(self) -> Finding:
        count, events = self.health.partitions, self.system.topics.get(self.topics.events)
        if self.health.leaderless:
            return self._finding(
                "partitions",
                "error",
                f"{count}, of which {_abbreviated(self.health.leaderless)} have no leader",
                "they cannot be read or written: bring their brokers back",
            )
        between = (self.topics.joined_pages, self.topics.examples)
        if events is not None and self.name in between and count != events.partitions:
            return self._finding(
                "partitions",
                "error",
                f"{count}, but {self.topics.events} has {events.partitions}",
                "they must be equal: create separate topics with `prectr topics create --topic-prefix NAME.`",
            )
        return self._finding("partitions", "ok", str(count))

    def _replication(self) -> Finding:
        copies = self.health.min_replicas
        observed = f"replication factor {copies}, {self.system.brokers} broker(s)"
        if self.health.under_replicated:
            detail = f"{observed}; partitions {_abbreviated(self.health.under_replicated)} are under-replicated"
            return self._finding("replication", "warning", detail, "check the brokers that are lagging or down")
        if copies == 1:
            advice = "the loss of a broker disk loses the log: on three or more brokers use `prectr topics create "
            advice += "--replication 3` under a new --topic-prefix, or kafka-reassign-partitions.sh"
            return self._finding("replication", "warning", observed, advice)
        return self._finding("replication", "ok", observed)

    def _timestamps(self, settings: Mapping[str, str]) -> Finding:
        kind = settings.get("message.timestamp.type", "CreateTime")
        if kind == "LogAppendTime":
            return self._finding("message.timestamp.type", "ok", kind)
        advice = "records with an old timestamp are deleted at once, those with a future one are rejected or kept "
        advice += f"forever: {self._alter('message.timestamp.type=LogAppendTime')}"
        return self._finding("message.timestamp.type", "warning", kind, advice)

    def _size(self, settings: Mapping[str, str]) -> Finding:
        limit, expected = int(settings.get("max.message.bytes", 0)), self.topics.max_message_bytes(self.name)
        observed, alter = _bytes(limit), self._alter(f"max.message.bytes={expected}")
        if self.name == self.topics.dead_letters:
            events = self.system.topics.get(self.topics.events)
            largest = int((events.settings if events and events.settings else {}).get("max.message.bytes", 0))
            if limit < largest + _RECORD_OVERHEAD:
                observed += f", but {self.topics.events} accepts {_bytes(largest)}"
                advice = f"a dead letter must hold the largest event, or the stream stops: {alter}"
                if expected < largest + _RECORD_OVERHEAD:
                    advice = "a dead letter must hold the largest event, or the stream stops: "
                    advice += self._alter(f"max.message.bytes={largest + (largest >> 1)}")
                return self._finding("max.message.bytes", "error", observed, advice)
        elif self.name == self.topics.events:
            if limit < MAX_EVENT_BYTES + _RECORD_OVERHEAD:
                return self._finding(
                    "max.message.bytes",
                    "error",
                    observed,
                    f"events of up to {_bytes(MAX_EVENT_BYTES)} must fit: {alter}",
                )
            if limit < expected:
                advice = f"`prectr topics create` sets {_bytes(expected)}, so that an oversized event "
                return self._finding(
                    "max.message.bytes", "warning", observed, f"{advice}becomes a dead letter: {alter}"
                )
        elif limit < expected:
            return self._finding(
                "max.message.bytes", "error", observed, f"a frame that does not fit stops the pipeline: {alter}"
            )
        return self._finding("max.message.bytes", "ok", observed)

    def _cleanup(self, settings: Mapping[str, str]) -> Finding:
        policy = settings.get("cleanup.policy", "delete")
        if "compact" in policy and self.name != self.topics.quality:
            advice = f"compaction would remove needed records: {self._alter('cleanup.policy=delete')}"
            return self._finding("cleanup.policy", "error", policy, advice)
        return self._finding("cleanup.policy", "ok", policy)

    def _retention(self, settings: Mapping[str, str]) -> Finding:
        age, size = int(settings.get("retention.ms", -1)), int(settings.get("retention.bytes", -1))
        observed = f"{_duration(age)} and {'any size' if size < 0 else _bytes(size) + ' per partition'}"
        if age < 0 and size < 0:
            return self._finding("retention", "ok", "unlimited")
        unlimited = self._alter("retention.ms=-1,retention.bytes=-1")
        if self.name == self.topics.dead_letters:
            if 0 <= age < _DAY_MS:
                advice = f"dead letters expire before they can be inspected: {self._alter('retention.ms=2592000000')}"
                return self._finding("retention", "warning", observed, advice)
            return self._finding("retention", "ok", observed)
        if self.name == self.topics.examples:
            advice = "a trainer that is down for longer cannot resume, and a new one misses expired examples: "
            return self._finding("retention", "warning", observed, advice + unlimited)
        if self.snapshots is None:
            advice = "without snapshots lost state is rebuilt from the whole log: start `prectr stream` with "
            return self._finding("retention", "warning", observed, f"{advice}--snapshots URL, or {unlimited}")
        return self._retention_with_snapshots(age, size, observed, round(self.snapshots.interval * 1000))

    def _retention_with_snapshots(self, age: int, size: int, observed: str, interval: int) -> Finding:
        """Retention of the input of a lost state folder. interval: ms between two snapshots."""
        observed += f", one snapshot per {_duration(interval)}"
        longer = self._alter(f"retention.ms={max(7 * _DAY_MS, 100 * interval)}")
        if 0 <= age < _ERROR_INTERVALS * interval:
            advice = f"records expire before a snapshot covers them: {longer}"
            return self._finding("retention", "error", observed, advice)
        if 0 <= age < max(_WARNING_INTERVALS * interval, _DAY_MS):
            advice = f"the stream must not be down for longer than that: {longer}"
            return self._finding("retention", "warning", observed, advice)
        if size >= 0:
            advice = f"at a high rate the log expires earlier than its age limit: {self._alter('retention.bytes=-1')}"
            return self._finding("retention", "warning", observed, advice)
        return self._finding("retention", "ok", observed)

    def _min_insync_replicas(self, settings: Mapping[str, str]) -> Finding:
        min_insync, copies = int(settings.get("min.insync.replicas", 1)), self.health.min_replicas
        observed = f"{min_insync} of {copies}"
        if min_insync > copies:
            advice = f"writes are rejected: {self._alter(f'min.insync.replicas={max(1, copies - 1)}')}"
            return self._finding("min.insync.replicas", "error", observed, advice)
        if copies > 1 and min_insync == copies:
            advice = (
                f"a single broker that is down stops all writes: {self._alter(f'min.insync.replicas={copies - 1}')}"
            )
            return self._finding("min.insync.replicas", "warning", observed, advice)
        if copies > 2 and min_insync == 1:
            advice = "records acknowledged by one broker alone may be lost with it: "
            return self._finding(
                "min.insync.replicas", "warning", observed, advice + self._alter("min.insync.replicas=2")
            )
        return self._finding("min.insync.replicas", "ok", observed)


def _broker(settings: Mapping[str, str] | None, bootstrap: str) -> Iterator[Finding]:
    """Broker settings that the system depends on."""
    if settings is None:
        advice = "grant the user of --client-config DescribeConfigs on the cluster, or ask its administrator for "
        advice += "offsets.retention.minutes (downtime of the stream must be shorter)"
        yield Finding("broker settings", "warning", "the broker does not return them", advice)
        return
    minutes = int(settings.get("offsets.retention.minutes", _MIN_OFFSETS_RETENTION_MINUTES))
    observed = f"{_duration(minutes * 60_000)}: a stream that is down for longer loses its offsets"
    if minutes < _MIN_OFFSETS_RETENTION_MINUTES:
        advice = (
            f"set offsets.retention.minutes={_MIN_OFFSETS_RETENTION_MINUTES} or more in server.properties of every "
        )
        yield Finding("broker offsets.retention.minutes", "warning", observed, f"{advice}broker, restart one by one")
    else:
        yield Finding("broker offsets.retention.minutes", "ok", observed)
    longest = int(settings.get("transaction.max.timeout.ms", 900_000))
    if longest < _TRANSACTION_TIMEOUT_MS:
        advice = (
            f"set transaction.max.timeout.ms={_TRANSACTION_TIMEOUT_MS} or more in server.properties: the tasks need it"
        )
        yield Finding("broker transaction.max.timeout.ms", "error", _duration(longest), advice)
    else:
        yield Finding("broker transaction.max.timeout.ms", "ok", _duration(longest))
    metadata = int(settings.get("offset.metadata.max.bytes", _MIN_METADATA_BYTES))
    if metadata < _MIN_METADATA_BYTES:
        advice = f"set offset.metadata.max.bytes={_MIN_METADATA_BYTES} or more in server.properties: each commit has "
        yield Finding("broker offset.metadata.max.bytes", "error", _bytes(metadata), f"{advice}metadata of its outputs")
    else:
        yield Finding("broker offset.metadata.max.bytes", "ok", _bytes(metadata))


def _abbreviated(numbers: list[int]) -> str:
    """At most eight numbers, and how many more."""
    few = ", ".join(map(str, numbers[:8]))
    return few if len(numbers) <= 8 else f"{few} and {len(numbers) - 8} more"


def _duration(ms: int) -> str:
    """Milliseconds in the largest unit that needs no fraction."""
    if ms < 0:
        return "any age"
    for unit, size in (("d", _DAY_MS), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if ms >= size and ms % size == 0:
            return f"{ms // size} {unit}"
    return f"{ms} ms"


def _bytes(count: int) -> str:
    """Bytes in the largest unit that needs no fraction."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count:,} bytes"
