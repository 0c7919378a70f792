"""A task's store as a dict: `prectr.state.store.ReadableStore`, and `write`."""

from collections.abc import Iterator, Sequence

from prectr.state.store import Changes


class DictStore:
    """Keeps every entry in memory; `copy` is the state to restore after a crash."""

    def __init__(self, entries: dict[bytes, bytes] | None = None) -> None:
        self.entries = dict(entries or {})

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.entries.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Like RocksDB's iterators, it shows the entries at the time of the call."""
        return iter(sorted((key, value) for key, value in self.entries.items() if start <= key < end))

    def write(self, changes: Changes) -> None:
        for key, value in changes.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value

    def copy(self) -> "DictStore":
        return DictStore(self.entries)

    def keys(self, prefix: bytes) -> list[bytes]:
        return sorted(key for key in self.entries if key.startswith(prefix))
