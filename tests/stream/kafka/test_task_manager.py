"""The tasks of a stage: assigned, revoked, opened again after errors; each event is processed exactly once."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from kafka import TopicPartition
from kafka.errors import (
    CorruptRecordError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    ProducerFencedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    UnsupportedCodecError,
)

from prectr.state.errors import PrectrError, StateError
from prectr.stream.config import PipelineConfig
from prectr.stream.events.partition import partitions_of
from prectr.stream.join.event_clock import MAX_WATERMARK
from prectr.stream.kafka.client.end_offsets import EndOffsets
from prectr.stream.kafka.tasks import task_manager as module
from prectr.stream.kafka.tasks.aggregate_task import AggregateTask
from prectr.stream.kafka.tasks.stages import StageManager
from prectr.stream.kafka.tasks.task_context import EndOfInput
from prectr.stream.kafka.tasks.task_status import TaskState
from prectr.stream.ordering.frames import END_OF_LOG
from tests.kit.kafka.stream import TOPICS, FakeSystem
from tests.kit.stages.events import MINUTE, WINDOW, T, click, page

PARTITIONS = 3
PAGES = 12


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_POLL_TIMEOUT", "_LINGER", "_SAMPLE_INTERVAL"):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr("prectr.stream.kafka.tasks.stateful_task._COMMIT_VISIBLE_TIMEOUT", 0.0)
    # So that pages close in these small logs: a partition settles on a time with its second user.
    monkeypatch.setattr("prectr.stream.join.event_clock.SETTLING_TURNS", 1)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[FakeSystem]:
    system = FakeSystem(tmp_path, PARTITIONS)
    yield system
    system.close()


def users(partition: int, count: int) -> list[str]:
    """Users whose events go to a partition."""
    names = [f"u{number}" for number in range(200)]
    numbers = partitions_of(names, PARTITIONS)
    return [name for name, number in zip(names, numbers, strict=True) if number == partition][:count]


EVERYWHERE = [user for partition in range(PARTITIONS) for user in users(partition, 2)]


def load_pages(system: FakeSystem, start: int = T, prefix: str = "r") -> list[str]:
    """Load two pages with a click for users in every partition; returns their request ids."""
    found = []
    for number, user in enumerate(EVERYWHERE):
        for second in range(2):
            request_id = f"{prefix}{number}-{second}"
            ts = start + second * 1000
            system.load(user, page(request_id, user, ts), click(request_id, user, ts + 10))
            found.append(request_id)
    return sorted(found)


def end_of(system: FakeSystem, *, flush: bool = True) -> EndOfInput:
    logs = [system.broker.logs[partition].end for partition in system.broker.partitions_of(TOPICS.events)]
    return EndOfInput(logs, flush)


def flush(system: FakeSystem, *managers: StageManager) -> None:
    """Run until the group has processed and flushed everything."""
    end = end_of(system)

    def ended() -> bool:
        for manager in managers:
            manager.commit_ends(end)
        return all(manager.group_has_ended(end) for manager in managers)

    system.run(*managers, until=ended)


def share(system: FakeSystem, first: StageManager, second: StageManager) -> None:
    """Run until both have a part of the tasks."""
    system.run(
        first,
        second,
        until=lambda: bool(first.tasks) and bool(second.tasks) and len(first.tasks) + len(second.tasks) == PARTITIONS,
    )
    assert first.tasks.keys().isdisjoint(second.tasks)


def test_every_assigned_partition_has_a_task_that_processes_its_events(system: FakeSystem) -> None:
    expected = load_pages(system)
    manager = system.manager()
    system.run(manager, until=system.processed)
    assert sorted(manager.tasks) == [0, 1, 2]
    assert {status.state for status in manager.task_statuses()} == {TaskState.RUNNING}
    assert [status.lag for status in manager.task_statuses()] == [0, 0, 0]
    flush(system, manager)
    assert system.pages() == expected


def test_tasks_are_shared_with_a_second_process_and_each_page_is_emitted_once(system: FakeSystem) -> None:
    expected = load_pages(system)
    first = system.manager()
    system.run(first, until=system.processed)
    moved = {partition: task.next_offset for partition, task in first.tasks.items()}
    second = system.manager(name="2")
    share(system, first, second)
    expected += load_pages(system, T + MINUTE, "s")
    system.run(first, second, until=system.processed)
    flush(system, first, second)
    assert system.pages() == sorted(expected)
    assert all(task.next_offset > moved[partition] for partition, task in second.tasks.items())


def test_a_task_of_a_process_that_died_is_restored_without_output(system: FakeSystem) -> None:
    """Its state folder is lost: the log is reprocessed up to the commit."""
    expected = load_pages(system)
    first = system.manager()
    system.run(first, until=system.processed)
    frames = [len(each) for each in system.frames()]
    first.close()
    system.managers.remove(first)
    second = system.manager(name="2")
    system.run(
        second,
        until=lambda: bool(second.tasks) and all(each.state is TaskState.RUNNING for each in second.task_statuses()),
    )
    restored = [status.restored_records for status in second.task_statuses()]
    assert restored == [
        log.end for log in (system.broker.logs[each] for each in system.broker.partitions_of(TOPICS.events))
    ]
    assert [len(each) for each in system.frames()] == frames
    flush(system, second)
    assert system.pages() == expected


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ("send", KafkaError("rejected")),
        ("flush", KafkaTimeoutError("no answer")),
        ("add_offsets", ProducerFencedError("fenced")),
        ("commit", KafkaConnectionError("gone")),
        ("commit", KafkaTimeoutError("no answer")),
        ("commit_acknowledgement", KafkaTimeoutError("no answer")),
    ],
)
def test_after_a_failed_transaction_the_tasks_continue_from_the_committed_offset(
    operation: str, error: KafkaError, system: FakeSystem, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load_pages(system)
    manager = system.manager()
    system.run(manager, until=system.processed)
    expected += load_pages(system, T + WINDOW + MINUTE, "s")
    system.broker.fail(operation, error)
    assert not manager.run_once()
    assert manager.tasks == {}
    assert any("opening the tasks again from the committed offsets" in message for message in caplog.messages)
    system.run(manager, until=system.processed)
    flush(system, manager)
    assert system.pages() == sorted(expected)
    for frames in system.frames():
        for source in range(PARTITIONS):
            sequences = [frame.sequence for frame in frames if frame.source == source]
            assert sequences == list(range(len(sequences)))


def test_the_group_is_joined_again_before_the_tasks_are_opened(system: FakeSystem) -> None:
    """To open a task that has been reassigned would fence its new owner."""
    load_pages(system)
    manager = system.manager()
    system.run(manager, until=system.processed)
    generation = system.broker.groups["g-join"].generation
    system.broker.fail("begin", ProducerFencedError("another owner"))
    load_pages(system, T + MINUTE, "s")
    manager.run_once()
    opened = system.broker.calls.count("init")
    assert system.broker.groups["g-join"].generation > generation
    assert system.broker.groups["g-join"].members == {}
    system.run(manager, until=lambda: bool(manager.tasks))
    assert system.broker.calls.count("init") == opened + PARTITIONS


def test_an_error_that_opening_again_does_not_fix_is_raised(system: FakeSystem) -> None:
    load_pages(system)
    manager = system.manager()
    system.broker.fail("flush", TopicAuthorizationFailedError("not allowed"))
    with pytest.raises(TopicAuthorizationFailedError):
        system.run(manager, until=system.processed)


def test_a_state_error_is_raised_rather_than_the_failed_transaction_of_another_task(system: FakeSystem) -> None:
    load_pages(system)
    manager = system.manager()
    system.run(manager, until=system.processed)
    load_pages(system, T + MINUTE, "s")
    # Retention removes what partition 1 has not read yet; another task's transaction fails.
    log = system.broker.logs[TopicPartition(TOPICS.events, 1)]
    log.start = log.end - 1
    system.broker.fail("begin", KafkaError("failed"))
    with pytest.raises(StateError, match=r"partition 1: offset \d+ is next, but the log begins at"):
        manager.run_once()


def test_tasks_of_a_lost_generation_are_opened_again(system: FakeSystem) -> None:
    """Another process may have had them meanwhile."""
    expected = load_pages(system)
    manager = system.manager()
    system.run(manager, until=system.processed)
    before = dict(manager.tasks)
    system.broker.groups["g-join"].evict()
    system.run(manager, until=lambda: bool(manager.tasks) and manager.tasks.items().isdisjoint(before.items()))
    assert {task.state for task in before.values()} == {TaskState.CLOSED}
    # Their state was written as they were closed.
    assert [status.restored_records for status in manager.task_statuses()] == [0, 0, 0]
    flush(system, manager)
    assert system.pages() == expected


def test_a_partition_without_input_is_reported_idle_only_while_others_grow(
    system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prectr.stream.kafka.tasks.join_task._IDLE_AFTER", 0.0)
    monkeypatch.setattr("prectr.stream.kafka.tasks.join_task.WATERMARK_FRAME_INTERVAL", 0.0)
    (idle,), (busy,) = users(0, 1), users(1, 1)
    system.load(idle, page("idle", idle, T))
    manager = system.manager()
    system.run(manager, until=system.processed)
    for _ in range(5):
        manager.run_once()
    assert not any(frame.idleness for frame in system.frames()[0] if frame.source == 0)
    for number in range(5):
        system.load(busy, page(f"r{number}", busy, T + number))
        manager.run_once()
    reported = [frame.idleness for frame in system.frames()[0] if frame.source == 0 and frame.idleness]
    assert reported
    # Its own page is pending: nobody may pass the close time.
    assert {idleness.hold_until for idleness in reported} == {T + WINDOW - 1}


def test_end_offsets_are_sampled_only_for_a_task_without_input(
    system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prectr.stream.kafka.tasks.join_task._IDLE_AFTER", 60.0)
    manager = system.manager()
    system.run(manager, until=lambda: bool(manager.tasks))
    sampled: list[object] = []
    fetch = EndOffsets.fetch

    def counted(self: EndOffsets, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        sampled.append(partitions)
        return fetch(self, partitions)

    monkeypatch.setattr(EndOffsets, "fetch", counted)
    for _ in range(3):
        manager.run_once()
    assert sampled == []
    monkeypatch.setattr("prectr.stream.kafka.tasks.join_task._IDLE_AFTER", 0.0)
    manager.run_once()
    assert len(sampled) == 1


@pytest.mark.parametrize("flushed", [False, True])
def test_the_group_has_ended_when_the_tasks_of_all_processes_have_reported_the_end(
    flushed: bool, system: FakeSystem
) -> None:
    expected = load_pages(system)
    first, second = system.manager(), system.manager(name="2")
    share(system, first, second)
    end = end_of(system, flush=flushed)
    system.run(first, second, until=system.processed)
    first.commit_ends(end)
    assert not first.group_has_ended(end)
    second.commit_ends(end)
    assert first.group_has_ended(end)
    assert second.group_has_ended(end)
    assert system.pages() == (expected if flushed else [])


def test_the_group_has_not_ended_before_every_partition_is_read(system: FakeSystem) -> None:
    load_pages(system)
    manager = system.manager()
    system.run(manager, until=system.processed)
    end = end_of(system, flush=False)
    manager.commit_ends(end)
    assert manager.group_has_ended(end)
    load_pages(system, T + MINUTE, "s")
    later = end_of(system, flush=False)
    manager.commit_ends(later)
    assert not manager.group_has_ended(later)


def test_a_flush_ends_the_watermark_and_no_event_may_follow_it(system: FakeSystem) -> None:
    expected = load_pages(system)
    manager = system.manager()
    system.run(manager, until=system.processed)
    flush(system, manager)
    assert system.pages() == expected
    last = {frame.source: frame for frame in system.frames()[0]}
    assert {frame.watermark for frame in last.values()} == {MAX_WATERMARK}
    assert {frame.reached_end_offsets[source] for source, frame in last.items()} == {END_OF_LOG}
    load_pages(system, T + MINUTE, "s")
    assert not manager.group_has_ended(end_of(system))
    with pytest.raises(StateError, match="came after the flush that closed every page"):
        system.run(manager, until=lambda: False)


def test_the_next_stage_ends_when_every_source_has_reported_its_end(system: FakeSystem) -> None:
    expected = load_pages(system)
    join, aggregate = system.manager(), system.manager("aggregate")
    system.run(join, aggregate, until=lambda: system.processed() and system.processed("aggregate"))
    end = end_of(system)
    aggregate.commit_ends(end)
    assert not aggregate.group_has_ended(end)
    flush(system, join)

    system.run(aggregate, until=lambda: aggregate.group_has_ended(end))
    assert system.examples() == expected


@pytest.mark.parametrize("reached", [[], [5, 9], [5, 8, 5], [-1, 9, 5]])
def test_the_next_stage_has_not_ended_while_one_source_has_not(reached: list[int]) -> None:
    end = EndOfInput([5, 9, 5], flush=False)
    assert AggregateTask.has_committed_end([5, 9, 5], 0, end)
    assert not AggregateTask.has_committed_end(reached, 0, end)
    assert not AggregateTask.has_committed_end([5, 9, 5], 0, EndOfInput([5, 9, 5], flush=True))


def test_a_group_that_has_read_another_topic_is_rejected(system: FakeSystem) -> None:
    load_pages(system)
    system.run(system.manager(), until=system.processed)
    ((_, committed),) = list(system.broker.committed.items())[:1]
    system.broker.committed["g-aggregate", TopicPartition(TOPICS.events, 0)] = committed
    with pytest.raises(StateError, match="group g-aggregate has read search-events"):
        system.manager("aggregate")


def test_the_group_receives_when_each_local_state_was_written(system: FakeSystem, tmp_path: Path) -> None:
    for task, written_at in ((1, 60), (2, 10)):
        folder = tmp_path / "1" / f"join-{task}"
        folder.mkdir(parents=True)
        (folder / "a file").touch()
        os.utime(folder / "a file", (written_at, written_at))
    (tmp_path / "1" / "join-0").mkdir()
    system.manager()
    (member,) = system.broker.groups["g-join"].members.values()
    assert msgspec.json.decode(member.metadata.user_data) == {"1": 60_000, "2": 10_000}


@pytest.mark.parametrize("events", [0, 500])
def test_a_topic_that_is_recreated_while_it_is_read_is_told_before_anything_of_it_is_put_out(
    system: FakeSystem, events: int
) -> None:
    load_pages(system)
    manager = system.manager()
    system.run(manager, until=system.processed)
    before = system.broker.values(TOPICS.joined_pages)
    system.broker.recreate(TOPICS.events)
    for number in range(events):
        user = EVERYWHERE[number % len(EVERYWHERE)]
        system.load(user, page(f"n{number}", user, T + number * MINUTE))
    with pytest.raises(StateError, match=f"topic {TOPICS.events} was deleted and recreated"):
        system.run(manager, until=lambda: False)
    assert system.broker.values(TOPICS.joined_pages) == before


def test_a_topic_that_is_recreated_is_told_although_a_task_moves_before_it_is_noticed(system: FakeSystem) -> None:
    """The task that is opened finds a log that ends before the commit, which records lost by the broker look like."""
    load_pages(system)
    first, second = system.manager(), system.manager(name="2")
    system.run(first, second, until=lambda: system.processed() and bool(first.tasks) and bool(second.tasks))
    assignment = first._assignment
    assert assignment is not None
    system.broker.recreate(TOPICS.events)
    with pytest.raises(StateError, match=f"topic {TOPICS.events} was deleted and recreated"):
        first.reconcile_assignment(dataclasses.replace(assignment, tasks=frozenset(range(PARTITIONS))))


def test_partitions_that_are_added_while_a_topic_is_read_are_told(system: FakeSystem) -> None:
    load_pages(system)
    manager = system.manager()
    system.run(manager, until=system.processed)
    system.broker.add_partition(TOPICS.events)
    with pytest.raises(StateError, match=f"topic {TOPICS.events} has 4 partitions, and had 3"):
        system.run(manager, until=lambda: False)


def test_a_topic_that_is_deleted_is_waited_for_and_then_told(
    system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_pages(system)
    manager = system.manager()
    system.run(manager, until=system.processed)
    monkeypatch.setattr("prectr.stream.kafka.client.topic_changes._MAX_MISSING", 0.1)
    system.broker.delete(TOPICS.events)
    with pytest.raises(PrectrError, match=f"there is no topic {TOPICS.events}"):
        system.run(manager, until=lambda: False)


def test_records_of_an_unknown_codec_end_the_process_with_their_place(system: FakeSystem) -> None:
    load_pages(system)
    manager = system.manager()
    system.run(manager, until=system.processed)
    offset = manager.tasks[1].next_offset
    system.broker.fail("poll", UnsupportedCodecError("Libraries for snappy compression codec not found"))
    with pytest.raises(StateError, match=rf"partition 1 offset {offset}\b.*snappy.*pip install python-snappy"):
        system.run(manager, until=lambda: False)


def test_damaged_records_are_fetched_again_but_not_for_ever(system: FakeSystem) -> None:
    expected = load_pages(system)
    manager = system.manager()
    system.broker.fail("poll", CorruptRecordError(), CorruptRecordError())
    system.run(manager, until=system.processed)
    flush(system, manager)
    assert system.pages() == expected
    system.broker.fail("poll", *[CorruptRecordError() for _ in range(3)])
    with pytest.raises(StateError, match="records on the broker are damaged"):
        system.run(manager, until=lambda: False)


def test_a_process_with_other_settings_is_refused_although_it_has_no_state(system: FakeSystem) -> None:
    load_pages(system)
    first = system.manager()
    system.run(first, until=system.processed)
    other = system.manager(name="2", config=PipelineConfig(partitions=PARTITIONS, attribution_window=61.0))
    with pytest.raises(StateError, match="group g-join has committed with other settings"):
        system.run(first, other, until=lambda: False)
    # One that it had made with these settings would refuse the right ones.
    assert not list((system.folder / "2").glob("*"))


def test_a_transactional_id_that_is_refused_is_named_with_the_right(system: FakeSystem) -> None:
    load_pages(system)
    manager = system.manager()
    system.broker.fail("init", TransactionalIdAuthorizationFailedError())
    with pytest.raises(PrectrError, match=r"transactional id g-join-join-\d: .*Describe and Write on the id"):
        system.run(manager, until=lambda: False)
