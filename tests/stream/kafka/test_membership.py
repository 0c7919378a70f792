"""A process holds what its group assigned to it, finishes its transactions at a rebalance, and notices a loss."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from kafka.errors import GroupAuthorizationFailedError, KafkaError, NodeNotReadyError

from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.tasks.membership import Assignment, Membership
from tests.kit.kafka.broker import FakeBroker
from tests.kit.kafka.clients import FakeConnection

TOPICS = Topics()
GROUP = "join"
PARTITIONS = 4
MODULE = "prectr.stream.kafka.tasks.membership"
Join = Callable[..., Membership]


@pytest.fixture
def broker() -> FakeBroker:
    broker = FakeBroker()
    broker.create(TOPICS, PARTITIONS)
    return broker


@pytest.fixture
def join(broker: FakeBroker) -> Iterator[Join]:
    """Lets processes join; all leave at the end."""
    members: list[Membership] = []

    def join(**local_state: int) -> Membership:
        state = {int(number.removeprefix("p")): age for number, age in local_state.items()}
        connection = FakeConnection("fake:9092", broker=broker)
        members.append(
            Membership(connection, GROUP, TOPICS.events, PARTITIONS, session_timeout=1.0, local_state=lambda: state)
        )
        return members[-1]

    yield join
    for member in members:
        member.close()


def eventually(found: Callable[[], Assignment | None], wanted: Callable[[Assignment], bool]) -> Assignment:
    """Return the first assignment that is as wanted; a process polls until it has one."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assignment = found()
        if assignment is not None and wanted(assignment):
            return assignment
        time.sleep(0.005)
    raise AssertionError("no such assignment")


def holds(*tasks: int) -> Callable[[Assignment], bool]:
    return lambda assignment: assignment.tasks == frozenset(tasks)


def test_the_only_member_is_assigned_every_partition(join: Join) -> None:
    assignment = eventually(join().assignment, holds(0, 1, 2, 3))
    assert (assignment.version, assignment.lost_count) == (1, 0)


def test_a_new_member_is_assigned_the_tasks_whose_state_it_has(join: Join) -> None:
    first = join()
    eventually(first.assignment, holds(0, 1, 2, 3))
    second = join(p3=5, p0=7)
    assert eventually(first.assignment, holds(1, 2)).version == 2
    eventually(second.assignment, holds(0, 3))


def test_a_rebalance_waits_until_the_process_asks_for_its_assignment_again(
    join: Join, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was given an assignment may be in a transaction until it asks for the next one."""
    monkeypatch.setattr(f"{MODULE}._REVOKE_TIMEOUT", 60.0)
    first = join()
    before = eventually(first.assignment, holds(0, 1, 2, 3))
    second = join()
    time.sleep(0.2)
    assert second.assignment() is None
    assert first.assignment() is None
    eventually(second.assignment, lambda assignment: len(assignment.tasks) == 2)
    after = eventually(first.assignment, lambda assignment: len(assignment.tasks) == 2)
    assert after.group_metadata.generation_id > before.group_metadata.generation_id
    assert not broker.groups[GROUP].is_current(before.group_metadata)


def test_a_rebalance_does_not_wait_longer_than_its_timeout(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}._REVOKE_TIMEOUT", 0.05)
    eventually(join().assignment, holds(0, 1, 2, 3))
    eventually(join().assignment, lambda assignment: len(assignment.tasks) == 2)


def test_a_lost_generation_is_counted_and_the_member_joins_again(join: Join, broker: FakeBroker) -> None:
    member = join()
    before = eventually(member.assignment, holds(0, 1, 2, 3))
    broker.groups[GROUP].evict()
    after = eventually(member.assignment, lambda assignment: assignment.lost_count == 1)
    assert after.tasks == before.tasks
    assert after.version > before.version
    assert not broker.groups[GROUP].is_current(before.group_metadata)
    assert broker.groups[GROUP].is_current(after.group_metadata)


def test_a_member_that_leaves_hands_over_its_tasks(join: Join) -> None:
    first, second = join(), join()
    eventually(first.assignment, lambda assignment: len(assignment.tasks) == 2)
    eventually(second.assignment, lambda assignment: len(assignment.tasks) == 2)
    first.close()
    eventually(second.assignment, holds(0, 1, 2, 3))


def test_an_error_that_passes_is_retried(join: Join, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}._RETRY_BACKOFF", 0.01)
    broker.fail("heartbeat", NodeNotReadyError("no coordinator"))
    eventually(join().assignment, holds(0, 1, 2, 3))


@pytest.mark.parametrize("error", [GroupAuthorizationFailedError("not allowed"), KeyError("a race in the client")])
def test_another_error_ends_the_membership_and_is_raised(error: Exception, join: Join, broker: FakeBroker) -> None:
    member = join()
    eventually(member.assignment, holds(0, 1, 2, 3))
    broker.fail("heartbeat", error)
    with pytest.raises(KafkaError) as raised:
        eventually(member.assignment, lambda assignment: False)
    assert str(error) in str(raised.value)


def test_a_closed_member_has_no_thread(join: Join) -> None:
    member = join()
    eventually(member.assignment, holds(0, 1, 2, 3))
    member.close()
    assert not any(thread.name == f"membership-{TOPICS.events}" for thread in threading.enumerate())
