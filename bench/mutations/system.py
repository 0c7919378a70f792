"""A live system under test: its topics, and the flags by which its commands find them."""

from typing import Final

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, create_topics

PARTITIONS: Final = 4


class System:
    """Topics of one prefix on a broker."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.prefix = prefix
        self.topics = Topics(prefix)
        self.connection = Connection(bootstrap, connect_timeout=30)
        self.flags = ["--bootstrap", bootstrap, "--topic-prefix", prefix]

    def create_topics(self) -> None:
        """Create the topics."""
        create_topics(self.connection, self.topics, PARTITIONS)
