"""Who gets which task: whoever has its state already, and nobody more than a fair share."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from kafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment, ConsumerProtocolSubscription

_VERSION: Final = 0


class LocalStateAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """Gives each task to the member whose state of it is the newest, as far as shares stay fair.

    Members say in their metadata when they last wrote the state of which task, so a process that comes back, or stays
    while others come and go, keeps its state folder's worth. What they say decides no result, only who works.
    """

    name = "prectr-local-state"

    def __init__(self, partitions: int, local_state: Callable[[], Mapping[int, int]]) -> None:
        """local_state: by partition, a number that is the larger the newer this process's state is."""
        self._partitions = partitions
        self._local_state = local_state

    def metadata(self, topics: Any) -> Any:
        """What this member tells the one that assigns."""
        return ConsumerProtocolSubscription(_VERSION, list(topics), msgspec.json.encode(self._local_state()))

    def assign(self, cluster: Any, members: Any) -> dict[str, Any]:
        """Every partition of the topic, which is one and the same for all members, to one of them."""
        topic = members[0].metadata.topics[0]
        states = {member.member_id: _decode_local_state(member.metadata.user_data) for member in members}
        return {
            member: ConsumerProtocolAssignment(_VERSION, [(topic, share)] if share else [], b"")
            for member, share in balanced_assignment(self._partitions, states).items()
        }

    def on_assignment(self, assignment: Any, generation: int) -> None:
        """Nothing is remembered from one assignment to the next."""


def balanced_assignment(partitions: int, states: Mapping[str, Mapping[int, int]]) -> dict[str, list[int]]:
    """Partitions by member: the newest state decides, shares differ by one at the most.

    states: by member and partition, a number that is the larger the newer the member's state is.
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
    except msgspec.MsgspecError:  # a member of another version
        return {}
