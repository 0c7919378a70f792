"""What a broker says of its topics is judged, and each judgement says what to do."""

import pytest

from prectr.ops.doctor.broker.topic_checks import SnapshotTarget, evaluate
from prectr.stream.kafka.client.topics import SystemHealth, TopicHealth, Topics

NAMES = Topics("p.")
DAY = 86_400_000
SETTINGS = {
    "message.timestamp.type": "LogAppendTime",
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "min.insync.replicas": "2",
}
BROKER = {
    "offsets.retention.minutes": "10080",
    "transaction.max.timeout.ms": "900000",
    "offset.metadata.max.bytes": "4096",
}


def topic(partitions: int = 4, replicas: int = 3, *, dead: bool = False, **settings: str) -> TopicHealth:
    limit = {"max.message.bytes": str((12 if dead else 8) << 20)}
    given = {name.replace("_", "."): value for name, value in settings.items()}
    return TopicHealth(partitions, replicas, [], [], SETTINGS | limit | given)


def system(broker: dict[str, str] | None = None, **topics: TopicHealth | None) -> SystemHealth:
    found = {name: topic(dead=name == NAMES.dead_letters) for name in NAMES.all}
    for name, facts in topics.items():
        key = f"p.{name.replace('_', '-')}"
        if facts is None:
            del found[key]
        else:
            found[key] = facts
    return SystemHealth(found, 3, BROKER if broker is None else broker)


def seen(facts: SystemHealth, snapshots: SnapshotTarget | None = None) -> dict[str, tuple[str, str]]:
    """Name to level and advice of whatever is not ok."""
    findings = evaluate(facts, NAMES, "b:9092", snapshots)
    assert all(finding.observed for finding in findings)
    assert all(bool(finding.advice) == (finding.severity != "ok") for finding in findings)
    return {finding.name: (finding.severity, finding.advice) for finding in findings if finding.severity != "ok"}


def test_a_sound_system_has_nothing_to_say() -> None:
    assert seen(system()) == {}


def test_a_missing_topic_is_made_with_as_many_partitions_as_the_events_have() -> None:
    found = seen(system(search_events=topic(7), joined_pages=None, training_examples=topic(7)))
    command = "prectr topics create --bootstrap b:9092 --partitions 7 --topic-prefix p."
    assert found == {"p.joined-pages": ("error", command)}


@pytest.mark.parametrize(
    ("name", "facts", "what", "level", "advice"),
    [
        ("joined-pages", topic(5), "partitions", "error", "must be equal"),
        ("training-examples", topic(replicas=1, min_insync_replicas="1"), "replication", "warning", "--replication 3"),
        (
            "search-events",
            topic(message_timestamp_type="CreateTime"),
            "message.timestamp.type",
            "warning",
            "--entity-name p.search-events --add-config message.timestamp.type=LogAppendTime",
        ),
        ("search-events", topic(max_message_bytes="1048588"), "max.message.bytes", "error", "bytes=8388608"),
        ("search-events", topic(max_message_bytes="4194304"), "max.message.bytes", "warning", "bytes=8388608"),
        ("joined-pages", topic(max_message_bytes="1048588"), "max.message.bytes", "error", "bytes=8388608"),
        ("dead-letters", topic(max_message_bytes="8388608"), "max.message.bytes", "error", "bytes=12582912"),
        ("search-events", topic(cleanup_policy="compact,delete"), "cleanup.policy", "error", "cleanup.policy=delete"),
        ("search-events", topic(min_insync_replicas="4"), "min.insync.replicas", "error", "min.insync.replicas=2"),
        ("search-events", topic(min_insync_replicas="3"), "min.insync.replicas", "warning", "min.insync.replicas=2"),
        ("search-events", topic(min_insync_replicas="1"), "min.insync.replicas", "warning", "min.insync.replicas=2"),
        ("training-examples", topic(retention_ms=str(7 * DAY)), "retention", "warning", "retention.ms=-1"),
        ("search-events", topic(retention_ms=str(7 * DAY)), "retention", "warning", "--snapshots URL"),
        ("dead-letters", topic(dead=True, retention_ms="3600000"), "retention", "warning", "retention.ms=2592000000"),
        ("search-events", TopicHealth(4, 3, [2], [], None), "replication", "warning", "lagging or down"),
        ("search-events", TopicHealth(4, 3, [], [1, 3], None), "partitions", "error", "bring their brokers back"),
        ("search-events", TopicHealth(4, 3, [], [], None), "settings", "warning", "DescribeConfigs"),
    ],
)
def test_what_is_wrong_with_a_topic(name: str, facts: TopicHealth, what: str, level: str, advice: str) -> None:
    found = seen(system(**{name.replace("-", "_"): facts}))
    assert found[f"p.{name} {what}"][0] == level
    assert advice in found[f"p.{name} {what}"][1]


def test_dead_letters_fit_the_largest_event_of_a_larger_limit() -> None:
    found = seen(system(search_events=topic(max_message_bytes=str(20 << 20))))
    assert f"max.message.bytes={30 << 20}" in found["p.dead-letters max.message.bytes"][1]


@pytest.mark.parametrize(
    ("retention", "every", "level"),
    [
        (7 * DAY, 60, None),
        (3_600_000, 60, "warning"),
        (DAY, 60, None),
        (DAY, DAY // 1000, "error"),
        (3 * DAY, DAY // 1000, "warning"),
        (-1, DAY // 1000, None),
    ],
)
def test_retention_is_held_against_the_snapshots(retention: int, every: float, level: str | None) -> None:
    found = seen(system(joined_pages=topic(retention_ms=str(retention))), SnapshotTarget("s3://b", every))
    assert found.get("p.joined-pages retention", (None, ""))[0] == level


def test_retention_by_size_is_a_warning_since_a_rate_decides_how_long_it_lasts() -> None:
    found = seen(system(search_events=topic(retention_bytes=str(1 << 30))), SnapshotTarget("s3://b", 60))
    assert found == {"p.search-events retention": ("warning", found["p.search-events retention"][1])}
    assert "retention.bytes=-1" in found["p.search-events retention"][1]


@pytest.mark.parametrize(
    ("setting", "value", "level"),
    [
        ("offsets.retention.minutes", "1440", "warning"),
        ("transaction.max.timeout.ms", "30000", "error"),
        ("offset.metadata.max.bytes", "128", "error"),
    ],
)
def test_settings_of_the_broker(setting: str, value: str, level: str) -> None:
    found = seen(system(broker=BROKER | {setting: value}))
    assert found[f"broker {setting}"][0] == level
    assert setting in found[f"broker {setting}"][1]


def test_a_broker_that_hides_its_settings_is_a_warning() -> None:
    found = seen(SystemHealth(system().topics, 3, None))
    assert found["broker settings"][0] == "warning"
