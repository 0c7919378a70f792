"""The topics of one system, by name, and how they are made."""

from dataclasses import dataclass
from typing import Final

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
    with connection.admin() as admin:
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
            try:
                admin.create_topics([topic])
                made.append(name)
            except TopicAlreadyExistsError:
                pass
        admin.wait_for_topics(made)
    for name in topics.all:
        found = partition_count(connection, name)
        if found != partitions:
            raise PrectrError(
                f"topic {name} has {found} partitions, not {partitions}: use another --topic-prefix, "
                "or delete the topic and its group's offsets"
            )
    return made


def partition_count(connection: Connection, topic: str) -> int:
    """How many partitions a topic has.

    Raises:
        PrectrError: there is no such topic.
    """
    with connection.admin() as admin:
        described = {found["name"]: found for found in admin.describe_topics([topic])}
    found = described.get(topic)
    if not found or not found["partitions"]:
        raise PrectrError(f"there is no topic {topic}: make the topics with `prectr topics create`")
    return len(found["partitions"])
