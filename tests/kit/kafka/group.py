"""A consumer group of the fake broker, with the eager rebalance protocol: everything is revoked, then assigned."""

import time
from collections.abc import Coroutine
from threading import Condition
from typing import Any

from kafka import TopicPartition
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment, ConsumerProtocolSubscription
from kafka.structs import ConsumerGroupMetadata

_JOIN_TIMEOUT = 10.0


class Member:
    """A member as the group knows it."""

    def __init__(self, member_id: str, topic: str, assignor: Any) -> None:
        self.group_instance_id = None
        self.member_id = member_id
        self.topic = topic
        self.assignor = assignor
        self.joined_generation = 0
        self.generation = 0
        """Of its assignment."""
        self.assigned: list[TopicPartition] = []
        self.lost = False

    @property
    def metadata(self) -> Any:
        return ConsumerProtocolSubscription.decode(self.assignor.metadata({self.topic}).encode())


class FakeGroup:
    """Members rebalance in their own threads, as they poll."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.generation = 0
        self.members: dict[str, Member] = {}
        self._joined = 0

    def join(self, topic: str, assignor: Any) -> Member:
        with self.changed:
            self._joined += 1
            member = Member(f"member-{self._joined}", topic, assignor)
            self.members[member.member_id] = member
            self._rebalance()
            return member

    def leave(self, member: Member) -> None:
        with self.changed:
            if self.members.pop(member.member_id, None) is not None:
                self._rebalance()

    def evict(self) -> None:
        """Let the group continue without its members, as after missed heartbeats; they find out and join again."""
        with self.changed:
            for member in self.members.values():
                member.lost = True
            self._rebalance()

    def is_current(self, metadata: ConsumerGroupMetadata) -> bool:
        with self.changed:
            return metadata.member_id in self.members and metadata.generation_id == self.generation

    def metadata(self, name: str, member: Member) -> ConsumerGroupMetadata:
        return ConsumerGroupMetadata(name, member.generation, member.member_id, None)

    def _rebalance(self) -> None:
        self.generation += 1
        self.changed.notify_all()

    def needs_rejoin(self, member: Member) -> bool:
        return member.generation < self.generation and member.member_id in self.members

    def rejoin(self, member: Member) -> bool:
        """Wait until all members have joined the generation, and take the assignment; False if that has changed."""
        with self.changed:
            generation = member.joined_generation = self.generation
            self.changed.notify_all()
            self.changed.wait_for(
                lambda: (
                    self.generation != generation
                    or all(each.joined_generation == generation for each in self.members.values())
                ),
                _JOIN_TIMEOUT,
            )
            if self.generation != generation or member.member_id not in self.members:
                return False
            shares = member.assignor.assign(None, [self.members[name] for name in sorted(self.members)])
            share = ConsumerProtocolAssignment.decode(shares[member.member_id].encode())
            member.assigned = [
                TopicPartition(member.topic, number)
                for topic in share.assigned_partitions
                for number in topic.partitions
            ]
            member.generation = generation
            return True


def run_callback(callback: Coroutine[Any, Any, None]) -> None:
    """Run a rebalance callback as the client's event loop does; its only events are pauses."""
    try:
        while True:
            event = callback.send(None)
            time.sleep(event.args[0])
    except StopIteration:
        return
