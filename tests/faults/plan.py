"""What is done in which scenario: drawn from a seed, so that a scenario can be repeated alone."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.faults.worlds import LOG_FACTORIES

STREAM_FAILPOINTS: Final = ("after_produce", "before_commit", "after_commit", "after_write")

KINDS: Final = {
    "kill-stream": "kill -9 of a stream process at a random moment",
    "kill-stream-at-point": "kill -9 of a stream process at a named point of a transaction",
    "kill-in-rebalance": "kill -9 of a stream process while its tasks move to another",
    "kill-trainer": "kill -9 of the trainer at a random moment",
    "kill-in-checkpoint": "kill -9 of the trainer before a checkpoint is renamed into place",
    "kill-broker": "kill -9 of the broker, started again on its folder",
    "zombie": "SIGSTOP of a stream process for longer than the session timeout, then SIGCONT",
    "lose-state": "kill -9 of a stream process and deletion of its state folder",
    "third-process": "a third stream process joins and leaves",
    "disk-full": "the volume of a stream process's state is full for a while",
    "truncated-snapshot": "the newest snapshot is truncated, and the state folder that it is of is lost",
    "kill-in-snapshot": "kill -9 of a stream process while it stores a snapshot",
    "kill-in-restore": "kill -9 of a stream process while it restores a snapshot",
    "broker-away-at-start": "a process is started while the broker is down, which returns",
    "rights-taken": "an ACL denies the running system a right, and is removed again",
    "wrong-settings": "a third stream process joins with another attribution window",
    "non-finite-gradient": "a gradient of the trainer is infinite",
    "slow-clients": "hundreds of slow HTTP clients on every metrics port",
    "topic-recreated": "search-events is deleted and created again under the running system",
    "partitions-added": "search-events gets more partitions under the running system",
    "offsets-reset": "the groups' offsets are overwritten while the stages are stopped, and restored",
    "forged-frame": "another program writes a record to joined-pages or training-examples",
}
"""Name and meaning of every kind of fault."""
SNAPSHOT_KINDS: Final = frozenset({"truncated-snapshot", "kill-in-snapshot", "kill-in-restore"})
DISK_KINDS: Final = frozenset({"disk-full"})
LOG_ENDING_KINDS: Final = frozenset({"topic-recreated", "partitions-added", "forged-frame"})
"""After these the system cannot go on with its log, and is started over: each has a scenario of its own."""

SCENARIO_SIZES: Final = (1, 2, 4, 4, 6, 6, 8, 8)
"""Faults in a scenario, one of these: alone, and mixed with others."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault to come. overlaps: it does not wait until output flows again after the one before."""

    kind: str
    overlaps: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run of the live system. name: unique. snapshots: whether the stages have a folder to store them in."""

    seed: int
    number: int
    world: str
    partitions: int
    snapshots: bool
    faults: tuple[Fault, ...]

    @property
    def name(self) -> str:
        """What it is, in a few words."""
        kinds = list(dict.fromkeys(fault.kind for fault in self.faults))
        return f"{self.number}-{'+'.join(kinds)}"

    @property
    def rng(self) -> random.Random:
        """Its own random moments and places."""
        return random.Random(f"{self.seed}/{self.number}")


def make_plan(
    seed: int, faults: int, kinds: Sequence[str], *, snapshots: bool = True, sizes: Sequence[int] = SCENARIO_SIZES
) -> list[Scenario]:
    """Scenarios that hold so many faults, each kind as often as any other, give or take one.

    snapshots: whether the program has them; the kinds that need them are left out where not. sizes: faults of a
    scenario are as many as one of these; a fault that ends the log is alone.
    """
    usable = [kind for kind in kinds if snapshots or kind not in SNAPSHOT_KINDS]
    if not usable:
        return []
    rng = random.Random(f"{seed}")
    drawn: list[str] = []
    while len(drawn) < faults:
        drawn += rng.sample(usable, len(usable))
    del drawn[faults:]
    mixed = [kind for kind in drawn if kind not in LOG_ENDING_KINDS]
    groups = [[kind] for kind in drawn if kind in LOG_ENDING_KINDS]
    while mixed:
        size = rng.choice(sizes)
        groups.append(mixed[:size])
        del mixed[:size]
    return [_scenario(rng, seed, number, group, snapshots=snapshots) for number, group in enumerate(groups, 1)]


def _scenario(rng: random.Random, seed: int, number: int, kinds: Sequence[str], *, snapshots: bool) -> Scenario:
    return Scenario(
        seed=seed,
        number=number,
        world=rng.choice(list(LOG_FACTORIES)),
        partitions=rng.choice((3, 4)),
        snapshots=snapshots and (rng.random() < 0.5 or bool(SNAPSHOT_KINDS & set(kinds))),
        faults=tuple(
            Fault(kind, number_in_scenario > 0 and rng.random() < 0.2) for number_in_scenario, kind in enumerate(kinds)
        ),
    )
