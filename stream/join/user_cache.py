"""The users that a `join` task has in memory."""

from collections.abc import Iterable
from typing import Final

from prectr.state.store import ReadableStore
from prectr.stream.join.user_state import UserState

USER_KEY: Final = b"u"
"""Prefix of a user's key in the store; the user id follows."""


class UserCache:
    """Users by id, read from the store on demand.

    Users with pending pages or clicks stay in memory; the others are evicted once their changes are drained.
    """

    __slots__ = ("_store", "accessed", "resident")

    def __init__(self, store: ReadableStore) -> None:
        self._store = store
        self.resident: dict[str, UserState] = {}
        """The users in memory."""
        self.accessed: dict[str, UserState] = {}
        """Those that the next `drain_changes` visits: it writes them if dirty and evicts them if idle."""

    def load(self, user_ids: Iterable[str]) -> None:
        """Read the users that are not in memory, in one sorted multi-get."""
        resident = self.resident
        # Tested one by one: the difference of a set and the keys would visit all resident users.
        missing = sorted({user_id for user_id in user_ids if user_id not in resident})
        stored = self._store.get_many([USER_KEY + user_id.encode() for user_id in missing])
        for user_id, value in zip(missing, stored, strict=True):
            resident[user_id] = self.accessed[user_id] = UserState(value)

    def get(self, user_id: str) -> UserState:
        """Return a user with pending pages or clicks, read from the store if it is not in memory."""
        user = self.resident.get(user_id)
        if user is None:
            (stored,) = self._store.get_many([USER_KEY + user_id.encode()])
            user = self.resident[user_id] = UserState(stored)
        return user

    def drain_changes(self, watermark: int, dedup_retention: int) -> dict[bytes, bytes | None]:
        """Return the changes of the store since the last call and evict users without pending pages and clicks.

        Args:
            watermark: in ms; closed page ids older than `dedup_retention` ms are dropped from the entries.
        """
        changes: dict[bytes, bytes | None] = {}
        for user_id, user in self.accessed.items():
            if user.dirty:
                changes[USER_KEY + user_id.encode()] = user.encode(watermark, dedup_retention)
                user.dirty = False
            if not user.pending_pages and not user.pending_clicks:
                del self.resident[user_id]
        self.accessed.clear()
        return changes
