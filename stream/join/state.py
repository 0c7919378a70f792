"""The state of a `join` task that belongs to no single user."""

from typing import Final

import msgspec

from prectr.state.store import ReadableStore
from prectr.stream.join.event_clock import ClockState
from prectr.stream.join.outcomes import Outcomes

META_KEY: Final = b"m"


class JoinMeta(msgspec.Struct, array_like=True):
    """The entry under `META_KEY`; a new task has the defaults.

    Attributes:
        next_offset: offset of the next unread record.
        next_pending_id: number that the next pending page or click is given.
    """

    next_offset: int = 0
    clock: ClockState = msgspec.field(default_factory=ClockState)
    next_pending_id: int = 0
    outcomes: Outcomes = msgspec.field(default_factory=Outcomes)


encode_meta = msgspec.msgpack.Encoder().encode
_decode_meta = msgspec.msgpack.Decoder(JoinMeta).decode


def read_meta(store: ReadableStore) -> JoinMeta:
    """Read the task's entry; the defaults if there is none."""
    (stored,) = store.get_many([META_KEY])
    return JoinMeta() if stored is None else _decode_meta(stored)
