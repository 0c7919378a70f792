"""Processes that poll the same order in different batches act on it at the same records."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.stream.coordination.process_group import SingleProcess
from prectr.stream.coordination.synchronized_steps import StepSynchronizer, SyncedStep
from prectr.stream.ordering.released_batch import ReleasedBatch
from prectr.stream.records import Example
from tests.kit.models.examples import random_examples
from tests.kit.models.threads import ThreadExchange

EXAMPLES = random_examples(60, seed=4)


class ThreadPeer:
    """One of several processes, as a thread."""

    def __init__(self, rank: int, meeting: ThreadExchange) -> None:
        self.rank = rank
        self.world_size = meeting.size
        self._meeting = meeting

    def all_gather_bytes(self, payload: bytes) -> list[bytes]:
        return self._meeting.exchange(self.rank, payload)


class Source:
    """Returns the examples in batches of its own, some of them empty, and the watermark after each."""

    def __init__(self, seed: int, most: int) -> None:
        self._random = random.Random(seed)
        self._most = most
        self.given = 0

    def poll(self) -> ReleasedBatch:
        examples = EXAMPLES[self.given : self.given + self._random.randrange(self._most + 1)]
        self.given += len(examples)
        return ReleasedBatch(examples, EXAMPLES[self.given - 1].closes_at if self.given else 0)

    def all_given(self) -> bool:
        return self.given == len(EXAMPLES)


def _turns(lockstep: StepSynchronizer) -> list[SyncedStep]:
    turns = [lockstep.next_step()]
    while not (turns[-1].ended or turns[-1].stop):
        turns.append(lockstep.next_step())
    return turns


def _in_threads(size: int, work: Callable[[ThreadPeer], list[SyncedStep]]) -> list[list[SyncedStep]]:
    meeting = ThreadExchange(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, [ThreadPeer(rank, meeting) for rank in range(size)]))


def _read(turns: list[SyncedStep]) -> list[Example]:
    return [example for turn in turns for example in turn.examples]


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 4), seed=st.integers(0, 1000), pieces=st.lists(st.integers(1, 30), min_size=4, max_size=4))
def test_all_ranks_take_the_same_steps_whatever_each_receives(size: int, seed: int, pieces: list[int]) -> None:
    def work(peer: ThreadPeer) -> list[SyncedStep]:
        source = Source(seed + peer.rank, pieces[peer.rank])
        return _turns(StepSynchronizer(peer, source.poll, stop=lambda: False, ended=source.all_given))

    turns = _in_threads(size, work)
    assert all(each == turns[0] for each in turns)
    assert _read(turns[0]) == EXAMPLES
    assert turns[0][-1].ended


@pytest.mark.parametrize("asked", [0, 2])
def test_a_stop_request_on_any_rank_stops_all_after_the_same_step(asked: int) -> None:
    stop = threading.Event()

    def work(peer: ThreadPeer) -> list[SyncedStep]:
        source = Source(peer.rank, 5)

        def poll() -> ReleasedBatch:
            if peer.rank == asked and source.given > 20:
                stop.set()
            return source.poll()

        return _turns(
            StepSynchronizer(peer, poll, stop=lambda: peer.rank == asked and stop.is_set(), ended=source.all_given)
        )

    turns = _in_threads(3, work)
    assert all(each == turns[0] for each in turns)
    assert turns[0][-1].stop
    assert not turns[0][-1].ended
    assert _read(turns[0]) == EXAMPLES[: len(_read(turns[0]))]


def test_everything_rank_zero_polled_is_in_its_step_so_a_checkpoint_is_complete() -> None:
    def work(peer: ThreadPeer) -> list[SyncedStep]:
        source = Source(peer.rank, 7)
        lockstep = StepSynchronizer(peer, source.poll, stop=lambda: False, ended=source.all_given)
        turns: list[SyncedStep] = []
        while not turns or not turns[-1].ended:
            turns.append(lockstep.next_step())
            if peer.rank == 0:
                assert len(_read(turns)) == source.given
        return turns

    assert _read(_in_threads(2, work)[0]) == EXAMPLES


def test_alone_a_step_is_what_was_polled() -> None:
    source = Source(1, 9)
    lockstep = StepSynchronizer(SingleProcess(), source.poll, stop=lambda: False, ended=source.all_given)
    twin = Source(1, 9)
    for turn in _turns(lockstep):
        step = twin.poll()
        assert (turn.examples, turn.watermark) == (step.examples, step.watermark)
