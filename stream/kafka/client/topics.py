"""The topics of one system: names, creation, and their description by the broker."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import AuthorizationError, TopicAlreadyExistsError, TopicAuthorizationFailedError

from prectr.state.errors import PrectrError, Remedy
from prectr.stream.kafka.client.client import Connection

MAX_MESSAGE_BYTES: Final = 8 << 20
MAX_DEAD_LETTER_BYTES: Final = 12 << 20
"""A dead letter is a whole record of the events topic, with its source and reason in further headers."""


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of the topics; a prefix keeps systems on one broker apart."""

    prefix: str = ""

    @property
    def events(self) -> str:
        """Pages and clicks, by user."""
        return f"{self.prefix}search-events"

    @property
    def joined_pages(self) -> str:
        """Frames of closed pages, by query."""
        return f"{self.prefix}joined-pages"

    @property
    def examples(self) -> str:
        """Frames of training examples."""
        return f"{self.prefix}training-examples"

    @property
    def dead_letters(self) -> str:
        """Rejected events."""
        return f"{self.prefix}dead-letters"

    @property
    def quality(self) -> str:
        """Sketches of model quality."""
        return f"{self.prefix}model-quality"

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic."""
        return (self.events, self.joined_pages, self.examples, self.dead_letters, self.quality)

    def max_message_bytes(self, name: str) -> int:
        """Return the largest compressed record that a topic accepts."""
        return MAX_DEAD_LETTER_BYTES if name == self.dead_letters else MAX_MESSAGE_BYTES


def create_topics(connection: Connection, topics: Topics, partitions: int, replication: int = 1) -> list[str]:
    """Create the missing topics and return their names.

    Raises:
        PrectrError: the broker rejects the request, or a topic exists with another number of partitions.
    """
    created = []
    for name in topics.all:
        topic = NewTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=replication,
            topic_configs={
                "message.timestamp.type": "LogAppendTime",
                "max.message.bytes": str(topics.max_message_bytes(name)),
            },
        )
        if connection.call_admin(partial(_create, topic)):
            created.append(name)
    if created:
        connection.call_admin(lambda admin: admin.wait_for_topics(created))
    for name in topics.all:
        found = partition_count(connection, name)
        if found != partitions:
            raise PrectrError(
                f"topic {name} has {found} partitions, not {partitions}",
                Remedy.OTHER_TOPIC_PREFIX,
                Remedy.DELETE_TOPIC,
            )
    return created


def _create(topic: NewTopic, admin: KafkaAdminClient) -> bool:
    """Create a topic; returns whether it was missing."""
    try:
        admin.create_topics([topic])
    except TopicAlreadyExistsError:
        return False
    return True


class TopicDescription(NamedTuple):
    """A topic's partitions and id; a topic that is recreated under the same name has another id."""

    partitions: int
    topic_id: str


def describe_topic(connection: Connection, topic: str) -> TopicDescription:
    """Describe a topic.

    Raises:
        PrectrError: the topic does not exist, or the broker does not answer.
    """
    found = next(iter(connection.call_admin(lambda admin: admin.describe_topics([topic]))), None)
    if found and found["error_code"] == TopicAuthorizationFailedError.errno:
        raise PrectrError(connection.describe_error(TopicAuthorizationFailedError(topic)))
    if not found or not found["partitions"]:
        raise PrectrError(f"there is no topic {topic}", Remedy.CREATE_TOPICS)
    return TopicDescription(len(found["partitions"]), str(found["topic_id"]))


def partition_count(connection: Connection, topic: str) -> int:
    """Return the number of partitions of a topic; raises as `describe_topic`."""
    return describe_topic(connection, topic).partitions


def check_topics(connection: Connection, topics: Topics) -> int:
    """Check that all topics of the stages exist with the same number of partitions, and return that number.

    Raises:
        PrectrError: a topic is missing, or has another number of partitions.
    """
    expected = partition_count(connection, topics.events)
    for name in (topics.joined_pages, topics.examples):
        found = partition_count(connection, name)
        if found != expected:
            raise PrectrError(
                f"topic {name} has {found} partitions, {topics.events} has {expected}: they must be equal",
                Remedy.START_OVER_LIVE,
            )
    partition_count(connection, topics.dead_letters)
    return expected


class TopicHealth(msgspec.Struct, frozen=True):
    """Replication and settings of an existing topic.

    Attributes:
        min_replicas: replicas of the partition that has the fewest.
        under_replicated: partitions with a replica that is not in sync.
        leaderless: partitions that can be neither read nor written.
        settings: by name; None if this client may not read them.
    """

    partitions: int
    min_replicas: int
    under_replicated: list[int]
    leaderless: list[int]
    settings: dict[str, str] | None


def fetch_max_message_bytes(connection: Connection, topic: str) -> int | None:
    """Return the largest compressed record that a topic accepts; None if the broker does not report it."""
    settings = connection.call_admin(lambda admin: _fetch_settings(admin, ConfigResourceType.TOPIC, topic))
    return int(settings["max.message.bytes"]) if settings and "max.message.bytes" in settings else None


class SystemHealth(msgspec.Struct, frozen=True):
    """Topics and brokers of a system.

    Attributes:
        topics: the existing ones, by name.
        brokers: number of brokers.
        settings: of the broker with the lowest id; None if this client may not read them.
    """

    topics: dict[str, TopicHealth]
    brokers: int
    settings: dict[str, str] | None


def describe_system(connection: Connection, topics: Topics) -> SystemHealth:
    """Describe every topic of the system, and the brokers.

    Raises:
        PrectrError: the broker does not answer.
    """
    return connection.call_admin(partial(_describe, topics))


def _describe(topics: Topics, admin: KafkaAdminClient) -> SystemHealth:
    found = [topic for topic in admin.describe_topics(list(topics.all)) if topic["partitions"]]
    cluster = admin.describe_cluster()
    numbers = sorted(int(broker["broker_id"]) for broker in cluster["brokers"])
    return SystemHealth(
        {
            topic["name"]: _topic_health(topic, _fetch_settings(admin, ConfigResourceType.TOPIC, topic["name"]))
            for topic in sorted(found, key=lambda topic: topics.all.index(topic["name"]))
        },
        len(numbers),
        _fetch_settings(admin, ConfigResourceType.BROKER, str(numbers[0])) if numbers else None,
    )


def _topic_health(topic: Mapping[str, Any], settings: dict[str, str] | None) -> TopicHealth:
    partitions = topic["partitions"]
    return TopicHealth(
        len(partitions),
        min(len(partition["replica_nodes"]) for partition in partitions),
        sorted(
            partition["partition_index"]
            for partition in partitions
            if len(partition["isr_nodes"]) < len(partition["replica_nodes"])
        ),
        sorted(partition["partition_index"] for partition in partitions if partition["leader_id"] < 0),
        settings,
    )


def _fetch_settings(admin: KafkaAdminClient, kind: ConfigResourceType, name: str) -> dict[str, str] | None:
    try:
        answer = admin.describe_configs([ConfigResource(kind, name)], config_filter="all")
    except AuthorizationError:
        return None
    # Without permission, some brokers return an empty answer instead.
    found = answer.get(kind.name.lower(), {}).get(name)
    if not found:
        return None
    return {key: setting["value"] for key, setting in found.items() if setting["value"] is not None}
