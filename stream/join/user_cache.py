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

    __slots__ = ("_accessed", "_resident", "_store")

    def __init__(self, store: ReadableStore) -> None:
        self._store = store
        self._resident: dict[str, UserState] = {}
        self._accessed: dict[str, UserState] = {}

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._resident

    def __getitem__(self, user_id: str) -> UserState:
        """Return a user in memory; KeyError for one that is not."""
        return self._resident[user_id]

    @property
    def resident_ids(self) -> list[str]:
        """Ids of the users in memory."""
        return list(self._resident)

    def touch(self, user_id: str, user: UserState) -> None:
        """Have a user in memory considered by the next `drain_changes`: written if dirty, evicted if idle."""
        self._accessed[user_id] = user

    def load(self, user_ids: Iterable[str]) -> None:
        """Read the users that are not in memory, in one sorted multi-get."""
        resident = self._resident
        # Tested one by one: the difference of a set and the keys would visit all resident users.
        missing = sorted({user_id for user_id in user_ids if user_id not in resident})
        stored = self._store.get_many([USER_KEY + user_id.encode() for user_id in missing])
        for user_id, value in zip(missing, stored, strict=True):
            resident[user_id] = self._accessed[user_id] = UserState(value)

    def get(self, user_id: str) -> UserState:
        """Return a user with pending pages or clicks, read from the store if it is not in memory."""
        user = self._resident.get(user_id)
        if user is None:
            (stored,) = self._store.get_many([USER_KEY + user_id.encode()])
            user = self._resident[user_id] = UserState(stored)
        return user

    def drain_changes(self, watermark: int, dedup_retention: int) -> dict[bytes, bytes | None]:
        """Return the changes of the store since the last call and evict users without pending pages and clicks.

        Args:
            watermark: in ms; closed page ids older than `dedup_retention` ms are dropped from the entries.
        """
        changes: dict[bytes, bytes | None] = {}
        for user_id, user in self._accessed.items():
            if user.dirty:
                changes[USER_KEY + user_id.encode()] = user.encode(watermark, dedup_retention)
                user.dirty = False
            if not user.pending_pages and not user.pending_clicks:
                del self._resident[user_id]
        self._accessed.clear()
        return changes
