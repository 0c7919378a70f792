"""Several processes that read the same records in the one order take them in the same steps.

Each process polls for itself and gets what the broker happens to give it; rank 0 sets the pace. So all of them are
at the same place whenever they act on what is read, and what the order alone does not decide (when to stop, where
the run ends) is decided once, for all.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from prectr.stream.coordination.process_group import Peers
from prectr.stream.records import Example
from prectr.stream.replay.local_tasks import Step


class Turn(NamedTuple):
    """One step of all processes: the next examples, none to follow up to `line` (ms).

    stop: a process has been asked to stop, so this step is the last. ended: all that there was to read is read.
    """

    examples: list[Example]
    line: int
    stop: bool
    ended: bool


class _Said(msgspec.Struct, array_like=True):
    """What a process tells the others before each step; of the pages and of the end, rank 0 alone is heard."""

    pages: int
    line: int
    stop: bool
    ended: bool


class Lockstep:
    """Turns what each process polls into steps that are the same in all of them."""

    def __init__(
        self, peers: Peers, poll: Callable[[], Step], *, stop: Callable[[], bool], ended: Callable[[], bool]
    ) -> None:
        """poll: the next examples, in the one order. ended: asked of rank 0 alone, after a poll without examples.

        All must begin at the same place. What rank 0 has polled is in its next step; what another has polled
        beyond that waits in its memory, and is polled again after a restart.
        """
        self._peers = peers
        self._poll = poll
        self._stop = stop
        self._ended = ended
        self._ahead: list[Example] = []
        self._line = 0

    def turn(self) -> Turn:
        """Poll, hear what all have, and take the step."""
        leads = self._peers.rank == 0
        if leads or not self._ahead:
            self._take()
        ended = leads and not self._ahead and self._ended()
        heard = self._peers.gather(_encode(_Said(len(self._ahead), self._line, self._stop(), ended)))
        said = [_decode(each) for each in heard]
        pages, line = said[0].pages, said[0].line
        while len(self._ahead) < pages:
            self._take()
        examples, self._ahead = self._ahead[:pages], self._ahead[pages:]
        return Turn(examples, line, any(each.stop for each in said), said[0].ended)

    def _take(self) -> None:
        step = self._poll()
        self._ahead += step.examples
        self._line = step.line


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Said).decode
