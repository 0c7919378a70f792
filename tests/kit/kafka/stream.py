"""Processes of the live system on the fake broker, driven round by round."""

import time
from collections.abc import Callable
from pathlib import Path

from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.end_offsets import EndOffsets
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.tasks.stages import StageManager, StreamSettings
from prectr.stream.ordering.frames import Frame, decode_frame
from prectr.stream.records import decode_example, decode_joined_page
from tests.kit.kafka.broker import CLUSTER, FakeBroker
from tests.kit.kafka.clients import FakeConnection

TOPICS = Topics()


class FakeSystem:
    """Topics on a broker, and the processes that work on them."""

    def __init__(self, folder: Path, partitions: int) -> None:
        self.folder = folder
        self.partitions = partitions
        self.broker = FakeBroker()
        self.broker.create(TOPICS, partitions)
        self.connection = FakeConnection("fake:9092", broker=self.broker)
        self.managers: list[StageManager] = []

    def manager(self, stage: str = "join", name: str = "1", config: PipelineConfig | None = None) -> StageManager:
        """Start a process of a stage; `name` is that of its state folder."""
        settings = StreamSettings(
            connection=self.connection,
            topics=TOPICS,
            group_prefix="g-",
            config=config or PipelineConfig(partitions=self.partitions),
            state_dir=self.folder / name,
            session_timeout=1.0,
        )
        end_offsets = EndOffsets(self.connection)
        self.managers.append(StageManager(settings, stage, LexicalLabeller(), end_offsets, CLUSTER))
        return self.managers[-1]

    def load(self, user: str, *events: bytes) -> int:
        """Write a user's events; returns their partition."""
        (partition,) = partitions_of([user], self.partitions)
        self.broker.append(TOPICS.events, partition, *events)
        return partition

    def run(self, *managers: StageManager, until: Callable[[], bool]) -> None:
        """Run processes in turn."""
        deadline = time.monotonic() + 20
        while not until():
            assert time.monotonic() < deadline, "it never came true"
            for manager in managers:
                manager.run_once()

    def processed(self, stage: str = "join") -> bool:
        """Return whether everything in the stage's input is committed."""
        topic = TOPICS.events if stage == "join" else TOPICS.joined_pages
        logs = {where: self.broker.logs[where] for where in self.broker.partitions_of(topic)}
        committed = {where: self.broker.committed.get((f"g-{stage}", where)) for where in logs}
        last_records = {
            where: max((n for n, entry in enumerate(log.entries) if entry.record is not None), default=-1)
            for where, log in logs.items()
        }
        return all(
            last < 0 or ((found := committed[where]) is not None and found.offset > last)
            for where, last in last_records.items()
        )

    def frames(self, topic: str = TOPICS.joined_pages) -> list[list[Frame]]:
        """Return the committed frames of each partition."""
        return [[decode_frame(value, topic) for value in values] for values in self.broker.values(topic)]

    def pages(self) -> list[str]:
        """Return the request ids of the committed joined pages, in any order."""
        return sorted(decode_joined_page(each).request_id for each in self._records(TOPICS.joined_pages))

    def examples(self) -> list[str]:
        """Return the request ids of the committed examples, in any order."""
        return sorted(decode_example(each).request_id for each in self._records(TOPICS.examples))

    def close(self) -> None:
        for manager in self.managers:
            manager.close()

    def _records(self, topic: str) -> list[bytes]:
        return [record for frames in self.frames(topic) for frame in frames for record in frame.records]
