"""The tasks of `ingest` on a broker in memory: each record is processed exactly once, whatever fails or moves."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import CommitFailedError, KafkaConnectionError, KafkaTimeoutError, ProducerFencedError

from prectr.state.errors import StateError, UsageError
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.end_offsets import EndOffsets
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.dlq.records import decode_dead_letter
from prectr.stream.kafka.ingest import ingest_manager, ingest_task, position_sampler
from prectr.stream.kafka.ingest.alignment import Alignment
from prectr.stream.kafka.ingest.ingest_manager import IngestManager
from prectr.stream.kafka.ingest.position_sampler import PositionSampler
from prectr.stream.kafka.ingest.run import ForeignTopic, IngestSettings, run_ingest
from prectr.stream.kafka.tasks.task_context import EndOfInput
from prectr.stream.kafka.tasks.task_manager import TaskSource
from tests.kit.kafka.broker import FakeBroker
from tests.kit.kafka.clients import FakeConnection
from tests.kit.kafka.log import Partition
from tests.stream.ingest.records import T, mapper

TOPICS = Topics()
PARTITIONS = 3
INPUTS = {"pages": 2, "clicks": 1}
MAPPING = """
[page]
when = "items"
request_id = "id"
user_id = "user"
ts = "at"
[page.items]
each = "items"
item_id = "item"

[[click]]
when = "item"
request_id = "id"
user_id = "user"
ts = "at"
item_id = "item"
"""


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_manager, "_POLL_TIMEOUT", 0.001)
    monkeypatch.setattr(ingest_manager, "_LINGER", 0.0)
    monkeypatch.setattr(ingest_task, "_POSITION_INTERVAL", 0.0)
    monkeypatch.setattr(position_sampler, "_INTERVAL", 0.0)


class System:
    """Foreign topics and the system's own on a broker, and the processes that ingest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = FakeBroker()
        self.broker.create(TOPICS, PARTITIONS)
        for topic, count in INPUTS.items():
            self.broker.topic_ids[topic] = f"id of {topic}"
            for number in range(count):
                self.broker.logs[TopicPartition(topic, number)] = Partition()
        self.connection = FakeConnection("fake:9092", broker=self.broker)
        self.inputs = [TopicPartition(topic, number) for topic, count in INPUTS.items() for number in range(count)]
        self.expected: list[tuple[str, int]] = []
        """Request id and time of each event that the foreign records stand for."""
        self._to_close: list[Any] = []

    def process(self, topics: Sequence[str] = tuple(INPUTS), max_ahead: float = 5.0) -> list[IngestManager]:
        """Start a process; returns a manager for each topic."""
        groups = {topic: f"g-ingest-{topic}" for topic in INPUTS}
        sampler = PositionSampler(self.connection, groups, self.inputs, Alignment(max_ahead, 30.0))
        managers = [
            IngestManager(
                self.connection,
                TOPICS,
                TaskSource(f"ingest-{topic}", topic, INPUTS[topic], groups[topic]),
                mapper(self.folder, MAPPING),
                sampler,
                EndOffsets(self.connection),
                1.0,
            )
            for topic in topics
        ]
        self._to_close += [*managers, sampler]
        return managers

    def page(self, number: int, ts: int, partition: int = 0) -> None:
        self._add("pages", partition, {"id": f"p{number}", "user": f"u{number}", "at": ts, "items": ["i"]})

    def click(self, number: int, ts: int) -> None:
        self._add("clicks", 0, {"id": f"c{number}", "user": f"u{number}", "at": ts, "item": "i"})

    def damaged(self, topic: str, partition: int = 0) -> None:
        self.broker.append(topic, partition, b"{")

    def _add(self, topic: str, partition: int, row: dict[str, Any]) -> None:
        self.expected.append((row["id"], row["at"]))
        self.broker.append(topic, partition, json.dumps(row).encode())

    def load_backlog(self) -> None:
        """Write a backlog with a page or click every second, and some damaged records."""
        for number in range(40):
            self.page(number, T + number * 1000, number % 2)
            self.click(number, T + number * 1000 + 400)
            if number % 8 == 3:
                self.damaged("pages", number % 2)
                self.damaged("clicks")

    def run(self, *managers: IngestManager, until: Callable[[], bool]) -> None:
        """Run managers in turn."""
        deadline = time.monotonic() + 30
        while not until():
            assert time.monotonic() < deadline, "it never came true"
            for manager in managers:
                manager.run_once()

    def written(self) -> list[dict[str, Any]]:
        return [json.loads(value) for values in self.broker.values(TOPICS.events) for value in values]

    def committed(self) -> bool:
        """Return whether the groups have committed everything."""
        found = self.broker.committed
        return all(
            (commit := found.get((f"g-ingest-{each.topic}", each))) is not None
            and commit.offset >= self.broker.logs[each].end
            for each in self.inputs
            if self.broker.logs[each].end
        )

    def assert_each_exactly_once(self, damaged: int) -> None:
        written = [(event["request_id"], event["ts"]) for event in self.written()]
        assert Counter(written) == Counter(self.expected)
        for partition, values in enumerate(self.broker.values(TOPICS.events)):
            events = [json.loads(value) for value in values]
            assert partitions_of([event["user_id"] for event in events], PARTITIONS) == [partition] * len(events)
        assert sum(map(len, self.broker.values(TOPICS.dead_letters))) == damaged

    def close(self) -> None:
        for each in self._to_close:
            each.close()


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path)
    yield system
    system.close()


def disorder(system: System) -> int:
    """Return how far an event is behind the newest before it in its partition, at most (ms)."""
    behind = 0
    for values in system.broker.values(TOPICS.events):
        newest = 0
        for value in values:
            ts = json.loads(value)["ts"]
            behind, newest = max(behind, newest - ts), max(newest, ts)
    return behind


def test_a_backlog_is_read_in_step(system: System) -> None:
    system.load_backlog()
    managers = system.process()
    system.run(*managers, until=system.committed)
    system.assert_each_exactly_once(damaged=10)
    assert disorder(system) <= 5_000
    (pages, clicks) = (manager.statuses() for manager in managers)
    assert [(task.records, task.pages, task.clicks) for task in pages] == [(20, 20, 0), (25, 20, 0)]
    assert [(task.records, task.clicks, task.dead_letters, task.lag) for task in clicks] == [
        (45, 40, {"not_json": 5}, 0)
    ]
    assert {task.read_time for task in clicks} == {T + 39_400}


def test_without_alignment_one_topic_runs_ahead(system: System) -> None:
    """That the backlog is read in step is the doing of the alignment, not of the broker in memory."""
    system.load_backlog()
    system.run(*system.process(max_ahead=1e6), until=system.committed)
    assert disorder(system) > 5_000


def test_two_processes_with_a_topic_each_read_in_step(system: System) -> None:
    system.load_backlog()
    managers = [*system.process(["pages"]), *system.process(["clicks"])]
    system.run(*managers, until=system.committed)
    system.assert_each_exactly_once(damaged=10)
    assert disorder(system) <= 5_000


def test_a_gap_in_both_topics_is_passed_by_two_processes(system: System) -> None:
    """Each process knows of the other's next record only what that has committed."""
    for number, second in enumerate((0, 1, 4_000, 9_000, 9_001)):
        system.page(number, T + second * 1000, number % 2)
        system.click(number, T + second * 1000 + 3_000_000)
    managers = [*system.process(["pages"]), *system.process(["clicks"])]
    system.run(*managers, until=system.committed)
    system.assert_each_exactly_once(damaged=0)
    assert disorder(system) <= 5_000


def test_an_idle_topic_holds_nothing_back(system: System) -> None:
    for number in range(5):
        system.page(number, T + number * 3_600_000)
    managers = system.process()
    system.run(*managers, until=system.committed)
    system.assert_each_exactly_once(damaged=0)


def test_the_markers_of_a_producers_transactions_hold_nothing_back(system: System) -> None:
    """A position past the last record is committed, since other processes cannot see it otherwise."""
    system.click(0, T)
    log = system.broker.logs[TopicPartition("clicks", 0)]
    log.append(TopicPartition("clicks", 0), b"aborted", transaction=99)
    log.end_transaction(99, commit=False)
    for number in range(3):
        system.page(number, T + number * 3_600_000)
    managers = [*system.process(["pages"]), *system.process(["clicks"])]
    system.run(*managers, until=system.committed)
    system.assert_each_exactly_once(damaged=0)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ("begin", KafkaConnectionError),
        ("send", KafkaTimeoutError),
        ("flush", KafkaTimeoutError),
        ("add_offsets", CommitFailedError),
        ("commit", ProducerFencedError),
        ("commit_acknowledgement", KafkaTimeoutError),
    ],
)
def test_a_failed_transaction_is_done_again(system: System, operation: str, error: type[Exception]) -> None:
    system.load_backlog()
    managers = system.process()
    system.run(*managers, until=lambda: len(system.written()) > 5)
    system.broker.fail(operation, error("injected"), error("injected"))
    system.run(*managers, until=system.committed)
    system.assert_each_exactly_once(damaged=10)


def test_a_process_that_joins_takes_over_partitions(system: System) -> None:
    system.load_backlog()
    first = system.process(["pages"]), system.process(["clicks"])
    managers = [manager for managers in first for manager in managers]
    system.run(*managers, until=lambda: len(system.written()) > 10)
    managers += system.process()
    system.run(*managers, until=lambda: system.committed() and any(manager.tasks for manager in managers[2:]))
    system.assert_each_exactly_once(damaged=10)


def test_a_process_that_starts_again_continues_behind_the_commit(system: System) -> None:
    system.load_backlog()
    for more in (5, 30):
        managers = system.process()
        system.run(*managers, until=lambda more=more: len(system.written()) > more)  # type: ignore[misc]
        system.close()
        system._to_close.clear()
    system.run(*system.process(), until=system.committed)
    system.assert_each_exactly_once(damaged=10)


def test_a_dead_letter_holds_the_record_and_where_it_was(system: System) -> None:
    where = TopicPartition("clicks", 0)
    system.broker.logs[where].append(where, b"{", b"key", [("from", b"shop"), ("to", b"")])
    system.run(*system.process(), until=system.committed)
    (record,) = [
        record
        for each in system.broker.partitions_of(TOPICS.dead_letters)
        for record in system.broker.logs[each].read(0, committed=True, limit=10)[0]
    ]
    found = decode_dead_letter(record)
    assert (found.reason, found.topic, found.partition, found.offset) == ("not_json", "clicks", 0, 0)
    assert (found.key, found.value, found.headers) == (b"key", b"{", [("from", b"shop"), ("to", b"")])


def test_until_end_ends_for_all_processes_when_everything_is_through(system: System) -> None:
    system.load_backlog()
    managers = [*system.process(["pages"]), *system.process(["clicks"])]
    ends = [
        EndOfInput([system.broker.logs[each].end for each in system.inputs if each.topic == topic], flush=False)
        for topic in INPUTS
    ]

    def ended() -> bool:
        for manager, end in zip(managers, ends, strict=True):
            manager.commit_ends(end)
        return all(manager.group_has_ended(end) for manager, end in zip(managers, ends, strict=True))

    system.run(*managers, until=ended)
    system.assert_each_exactly_once(damaged=10)


def test_records_that_retention_has_removed_are_an_error(system: System) -> None:
    system.click(0, T)
    system.run(*system.process(), until=system.committed)
    system.close()
    system._to_close.clear()
    system.click(1, T)
    system.click(2, T)
    system.broker.logs[TopicPartition("clicks", 0)].start = 2
    with pytest.raises(StateError, match="retention has removed"):
        system.run(*system.process(), until=system.committed)


def test_a_topic_that_was_created_again_is_an_error(system: System) -> None:
    system.click(0, T)
    system.run(*system.process(), until=system.committed)
    system.close()
    system._to_close.clear()
    system.broker.topic_ids["clicks"] = "another"
    with pytest.raises(StateError, match="deleted and recreated"):
        system.run(*system.process(), until=lambda: False)


@pytest.mark.parametrize("names", [["search-events"], ["dead-letters"], ["pages", "pages"]])
def test_a_topic_of_the_system_and_a_topic_twice_are_wrong_use(system: System, names: list[str]) -> None:
    mapping = system.folder / "mapping.toml"
    mapping.write_text(MAPPING)
    settings = IngestSettings(
        connection=system.connection,
        topics=TOPICS,
        group_prefix="g-",
        inputs=[ForeignTopic(name=name, mapping=mapping) for name in names],
        max_ahead=5.0,
    )
    with pytest.raises(UsageError):
        run_ingest(settings)
