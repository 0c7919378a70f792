"""Several processes that read the same records in the one order take them in the same steps.

Each process polls for itself and gets what the broker happens to give it; rank 0 sets the pace. So all of them are
at the same place whenever they act on what is read, and what the order alone does not decide (when to stop, where
the run ends) is decided once, for all.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from prectr.stream.coordination.process_group import ProcessGroup
from prectr.stream.records import Example
from prectr.stream.replay.local_tasks import ReleasedBatch


class SyncedStep(NamedTuple):
    """One step of all processes: the next examples, none to follow up to `line` (ms).

    stop: a process has been asked to stop, so this step is the last. ended: all that there was to read is read.
    """

    examples: list[Example]
    watermark: int
    stop: bool
    ended: bool


class _RankMessage(msgspec.Struct, array_like=True):
    """What a process tells the others before each step; of the pages and of the end, rank 0 alone is heard."""

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
        """poll: the next examples, in the one order. ended: asked of rank 0 alone, after a poll without examples.

        All must begin at the same place. What rank 0 has polled is in its next step; what another has polled
        beyond that waits in its memory, and is polled again after a restart.
        """
        self._process_group = process_group
        self._poll = poll
        self._stop = stop
        self._ended = ended
        self._buffered: list[Example] = []
        self._watermark = 0

    def next_step(self) -> SyncedStep:
        """Poll, hear what all have, and take the step."""
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
