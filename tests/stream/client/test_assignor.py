"""Assignment of tasks: shares are balanced, local state is kept, and undecodable state counts as none."""

from collections.abc import Mapping
from itertools import pairwise
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment, ConsumerProtocolSubscription

from prectr.stream.kafka.tasks.assignor import LocalStateAssignor, balanced_assignment

TOPIC = "search-events"
States = dict[str, dict[int, int]]

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
ages = st.dictionaries(st.integers(-3, 20), st.integers(0, 9) | st.integers(-(1 << 62), 1 << 62), max_size=12)
groups = st.dictionaries(names, ages, min_size=1, max_size=7)


@given(partitions=st.integers(1, 16), states=groups)
def test_every_partition_has_one_member_and_assignments_differ_by_at_most_one(partitions: int, states: States) -> None:
    shares = balanced_assignment(partitions, states)
    assert shares.keys() == states.keys()
    assert sorted(number for share in shares.values() for number in share) == list(range(partitions))
    sizes = {len(share) for share in shares.values()}
    assert max(sizes) - min(sizes) <= 1
    assert all(a < b for share in shares.values() for a, b in pairwise(share))


@given(partitions=st.integers(1, 16), states=groups, data=st.data())
def test_the_order_in_which_members_and_their_tasks_are_named_decides_nothing(
    partitions: int, states: States, data: st.DataObject
) -> None:
    members = data.draw(st.permutations(list(states)))
    other = {member: dict(data.draw(st.permutations(list(states[member].items())))) for member in members}
    assert balanced_assignment(partitions, other) == balanced_assignment(partitions, states)


@given(partitions=st.integers(1, 12), members=st.integers(1, 5), data=st.data())
def test_a_restarted_group_keeps_its_assignment(partitions: int, members: int, data: st.DataObject) -> None:
    """Whatever the ages, if no other member claims the same task."""
    before = balanced_assignment(partitions, {f"m{number}": {} for number in range(members)})
    states = {
        member: {number: data.draw(st.integers(0, 1 << 50)) for number in share} for member, share in before.items()
    }
    assert balanced_assignment(partitions, states) == before


@settings(max_examples=200)
@given(partitions=st.integers(1, 12), states=groups)
def test_no_member_with_newer_state_is_passed_over_while_it_has_capacity(partitions: int, states: States) -> None:
    """A member that claims a task in vain has a full share, or another's state of it is as new or newer.

    A share is full if it has the most that any may have, or if all the larger shares have been given away.
    """
    shares = balanced_assignment(partitions, states)
    owner = {number: member for member, share in shares.items() for number in share}
    for member, ages_of_tasks in states.items():
        for number, age in ages_of_tasks.items():
            if number not in owner or owner[number] == member:
                continue
            others = states[owner[number]].get(number)
            newer = others is not None and others >= age
            # What fills the share are tasks that it holds by claims no older than this one.
            least = partitions // len(states)
            by_claims = [held for held in shares[member] if ages_of_tasks.get(held, age - 1) >= age]
            assert newer or len(by_claims) >= least


def test_the_newest_state_decides_and_lower_numbers_and_names_break_ties() -> None:
    assert balanced_assignment(4, {"a": {0: 5, 1: 5}, "b": {0: 6, 1: 4}}) == {"a": [1, 2], "b": [0, 3]}
    assert balanced_assignment(2, {"b": {0: 7, 1: 7}, "a": {0: 7, 1: 7}}) == {"a": [0], "b": [1]}
    assert balanced_assignment(3, {"a": {0: 1, 1: 1, 2: 1}, "b": {}}) == {"a": [0, 1], "b": [2]}


def test_more_members_than_partitions_leave_the_ones_without_state_idle() -> None:
    assert balanced_assignment(2, {"a": {}, "b": {1: 3}, "c": {0: 2}, "d": {}}) == {
        "a": [],
        "b": [1],
        "c": [0],
        "d": [],
    }


def joined(assignor: LocalStateAssignor, member: str) -> SimpleNamespace:
    """Return a member as the group leader sees it: its metadata has been over the wire."""
    return seen(member, assignor.metadata({TOPIC}).encode())


def seen(member: str, wire: bytes) -> SimpleNamespace:
    return SimpleNamespace(member_id=member, group_instance_id=None, metadata=ConsumerProtocolSubscription.decode(wire))


def assigned(partitions: int, members: list[SimpleNamespace]) -> dict[str, list[int]]:
    """Return each member's partitions, decoded from its assignment on the wire."""
    answers = LocalStateAssignor(partitions, dict).assign(None, members)
    return {
        member: [
            number
            for partitions_of_topic in ConsumerProtocolAssignment.decode(answer.encode()).assigned_partitions
            for number in partitions_of_topic.partitions
        ]
        for member, answer in answers.items()
    }


@given(partitions=st.integers(1, 9), states=groups)
def test_member_state_survives_the_protocol(partitions: int, states: States) -> None:
    def member_with(state: Mapping[int, int]) -> LocalStateAssignor:
        return LocalStateAssignor(partitions, lambda: state)

    members = [joined(member_with(state), member) for member, state in states.items()]
    assert assigned(partitions, members) == balanced_assignment(partitions, states)


def test_the_state_is_read_at_each_group_join() -> None:
    state: dict[int, int] = {}
    assignor = LocalStateAssignor(2, lambda: state)
    members = [joined(LocalStateAssignor(2, dict), "a"), joined(assignor, "b")]
    assert assigned(2, members) == {"a": [0], "b": [1]}
    state[0] = 1
    members = [joined(LocalStateAssignor(2, dict), "a"), joined(assignor, "b")]
    assert assigned(2, members) == {"a": [1], "b": [0]}


RUBBISH = [
    None,
    b"",
    b"\xff\x00rubbish",
    b"null",
    b"[]",
    b'{"0": "new"}',
    b'{"zero": 1}',
    b'{"0": 1.5}',
    b'{"0": 1',
    msgspec.msgpack.encode({0: 1}),
    b"[" * 100_000,
    b'{"0": ' + b"9" * 5_000 + b"}",
]


@pytest.mark.parametrize("data", RUBBISH, ids=map(str, range(len(RUBBISH))))
def test_undecodable_state_counts_as_none(data: bytes | None) -> None:
    odd = seen("a", ConsumerProtocolSubscription(0, [TOPIC], data).encode())
    members = [odd, joined(LocalStateAssignor(3, lambda: {0: 1}), "b")]
    assert assigned(3, members) == balanced_assignment(3, {"a": {}, "b": {0: 1}})


def test_claims_on_partitions_that_there_are_not_are_passed_over() -> None:
    assert balanced_assignment(2, {"a": {-1: 9, 2: 9, 7: 9}, "b": {0: 1}}) == {"a": [1], "b": [0]}
