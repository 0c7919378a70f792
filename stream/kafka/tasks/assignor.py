"""Assignment of tasks to processes: to the newest local state, in balanced shares."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from kafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment, ConsumerProtocolSubscription

from prectr.state.encoding import DAMAGE

_VERSION: Final = 0


class LocalStateAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """Assigns each task to the member with the newest local state of it, as far as shares stay balanced.

    Members send in their metadata when they last wrote the state of each task, so a process that restarts, or stays
    while others join and leave, keeps the tasks of its state folder. This affects no result, only which process works.
    """

    name = "prectr-local-state"

    def __init__(self, partitions: int, local_state: Callable[[], Mapping[int, int]]) -> None:
        """Take the number of partitions, and a function that returns, by partition, how new this process's state is."""
        self._partitions = partitions
        self._local_state = local_state

    def metadata(self, topics: Any) -> Any:
        """Return the metadata that this member sends to the group leader."""
        return ConsumerProtocolSubscription(_VERSION, list(topics), msgspec.json.encode(self._local_state()))

    def assign(self, cluster: Any, members: Any) -> dict[str, Any]:
        """Assign every partition of the topic, to which all members subscribe."""
        topic = members[0].metadata.topics[0]
        states = {member.member_id: _decode_local_state(member.metadata.user_data) for member in members}
        return {
            member: ConsumerProtocolAssignment(_VERSION, [(topic, share)] if share else [], b"")
            for member, share in balanced_assignment(self._partitions, states).items()
        }

    def on_assignment(self, assignment: Any, generation: int) -> None:
        """Do nothing: no assignment depends on the previous one."""


def balanced_assignment(partitions: int, states: Mapping[str, Mapping[int, int]]) -> dict[str, list[int]]:
    """Return partitions by member: the newest state decides, and shares differ by at most one.

    Args:
        states: by member and partition, how new the member's state is: the larger, the newer.
    """
    members = sorted(states)
    assignment: dict[str, list[int]] = {member: [] for member in members}
    quota, surplus = divmod(partitions, len(members))
    unassigned = set(range(partitions))

    def has_room(member: str) -> bool:
        count = len(assignment[member])
        if count < quota:
            return True
        return count == quota and sum(len(share) > quota for share in assignment.values()) < surplus

    claims = sorted(
        (
            (written_at, number, member)
            for member in members
            for number, written_at in states[member].items()
            if number in unassigned
        ),
        key=lambda claim: (-claim[0], claim[1], claim[2]),
    )
    for _, number, member in claims:
        if number in unassigned and has_room(member):
            assignment[member].append(number)
            unassigned.remove(number)
    for number in sorted(unassigned):
        member = min((m for m in members if has_room(m)), key=lambda m: len(assignment[m]))
        assignment[member].append(number)
    return {member: sorted(share) for member, share in assignment.items()}


def _decode_local_state(data: bytes | None) -> Mapping[int, int]:
    try:
        return msgspec.json.decode(data or b"{}", type=dict[int, int])
    except DAMAGE:  # a member of another version
        return {}
