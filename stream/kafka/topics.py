"""The topics of one system, by name, and how they are made."""

from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from state.errors import PrectrError
from stream.kafka.client import Connection

_MAX_MESSAGE_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of the topics; a prefix keeps systems on one broker apart."""

    prefix: str = ""

    @property
    def events(self) -> str:
        """Pages and clicks, by user."""
        return f"{self.prefix}search-events"

    @property
    def activity(self) -> str:
        """Frames of closed pages, by query."""
        return f"{self.prefix}search-activity"

    @property
    def examples(self) -> str:
        """Frames of training examples."""
        return f"{self.prefix}training-examples"

    @property
    def dead_letters(self) -> str:
        """What was refused."""
        return f"{self.prefix}dead-letters"

    @property
    def quality(self) -> str:
        """Sketches of model quality."""
        return f"{self.prefix}model-quality"

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic."""
        return (self.events, self.activity, self.examples, self.dead_letters, self.quality)


def create_topics(connection: Connection, topics: Topics, partitions: int, replication: int = 1) -> list[str]:
    """Make those topics that are not there; returns the names of the ones made.

    Raises:
        PrectrError: the broker refuses, or a topic is there with another number of partitions.
    """
    made = []
    for name in topics.all:
        topic = NewTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=replication,
            topic_configs={
                "message.timestamp.type": "LogAppendTime",
                "max.message.bytes": str(_MAX_MESSAGE_BYTES),
            },
        )
        if connection.ask(partial(_created, topic)):
            made.append(name)
    if made:
        connection.ask(lambda admin: admin.wait_for_topics(made))
    for name in topics.all:
        found = partition_count(connection, name)
        if found != partitions:
            raise PrectrError(
                f"topic {name} has {found} partitions, not {partitions}: use another --topic-prefix, "
                "or delete the topic and its group's offsets"
            )
    return made


def _created(topic: NewTopic, admin: KafkaAdminClient) -> bool:
    """Make a topic; whether it was not there."""
    try:
        admin.create_topics([topic])
    except TopicAlreadyExistsError:
        return False
    return True


class Layout(NamedTuple):
    """What the broker says of a topic. identity: differs when a topic is made anew under its old name."""

    partitions: int
    identity: str


def layout(connection: Connection, topic: str) -> Layout:
    """Ask how a topic is laid out.

    Raises:
        PrectrError: there is no such topic, or no broker.
    """
    found = next(iter(connection.ask(lambda admin: admin.describe_topics([topic]))), None)
    if not found or not found["partitions"]:
        raise PrectrError(f"there is no topic {topic}: make the topics with `prectr topics create`")
    return Layout(len(found["partitions"]), str(found["topic_id"]))


def partition_count(connection: Connection, topic: str) -> int:
    """How many partitions a topic has; raises as `layout`."""
    return layout(connection, topic).partitions


def check_topics(connection: Connection, topics: Topics) -> int:
    """Make sure that all topics between the stages are there and alike; returns how many partitions each has.

    Raises:
        PrectrError: one is missing, or has another number of partitions.
    """
    wanted = partition_count(connection, topics.events)
    for name in (topics.activity, topics.examples):
        found = partition_count(connection, name)
        if found != wanted:
            raise PrectrError(
                f"topic {name} has {found} partitions, {topics.events} has {wanted}: they must be alike; "
                "make topics of your own under another --topic-prefix with `prectr topics create`"
            )
    partition_count(connection, topics.dead_letters)
    return wanted
