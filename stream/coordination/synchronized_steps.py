"""Synchronized steps: several processes that read the same records in the total order process them in equal batches.

Each process polls on its own and receives what the broker returns; rank 0 sets the batches. So all processes are at
the same record whenever they act, and what the order does not determine (when to stop, where the run ends) is decided
once for all.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from prectr.stream.coordination.process_group import ProcessGroup
from prectr.stream.ordering.released_batch import ReleasedBatch
from prectr.stream.records import Example


class SyncedStep(NamedTuple):
    """One step of all processes.

    Attributes:
        examples: the next examples in the total order.
        watermark: none of the later examples has a close time up to this (ms).
        stop: whether a process was requested to stop, so that this step is the last.
        ended: whether everything up to the requested end has been read.
    """

    examples: list[Example]
    watermark: int
    stop: bool
    ended: bool


class _RankMessage(msgspec.Struct, array_like=True):
    """Sent by each process before each step; of `pages`, `watermark` and `ended` only those of rank 0 are used."""

    pages: int
    watermark: int
    stop: bool
    ended: bool


class StepSynchronizer:
    """Turns what each process polls into steps that are the same in all of them."""

    def __init__(
        self,
        process_group: ProcessGroup,
        poll: Callable[[], ReleasedBatch],
        *,
        stop: Callable[[], bool],
        ended: Callable[[], bool],
    ) -> None:
        """All processes must start at the same record.

        Examples that rank 0 has polled are in its next step; those that another process has polled beyond that wait in
        its memory and are polled again after a restart.

        Args:
            poll: returns the next examples, in the total order.
            stop: whether this process was requested to stop.
            ended: whether everything is read; called on rank 0 only, after a poll without examples.
        """
        self._process_group = process_group
        self._poll = poll
        self._stop = stop
        self._ended = ended
        self._buffered: list[Example] = []
        self._watermark = 0

    def next_step(self) -> SyncedStep:
        """Poll, exchange messages with all processes, and return the step."""
        is_leader = self._process_group.rank == 0
        if is_leader or not self._buffered:
            self._poll_into_buffer()
        ended = is_leader and not self._buffered and self._ended()
        gathered = self._process_group.all_gather_bytes(
            _encode(_RankMessage(len(self._buffered), self._watermark, self._stop(), ended))
        )
        messages = [_decode(message) for message in gathered]
        pages, watermark = messages[0].pages, messages[0].watermark
        while len(self._buffered) < pages:
            self._poll_into_buffer()
        examples, self._buffered = self._buffered[:pages], self._buffered[pages:]
        return SyncedStep(examples, watermark, any(each.stop for each in messages), messages[0].ended)

    def _poll_into_buffer(self) -> None:
        batch = self._poll()
        self._buffered += batch.examples
        self._watermark = batch.watermark


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_RankMessage).decode
