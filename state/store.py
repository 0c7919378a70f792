"""A task's key-value state in RocksDB: sorted multi-gets, one atomic write a micro-batch, checkpoints."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import rocksdict

from prectr.state.errors import StateError, SystemLimitError
from prectr.state.private_files import make_private_folder
from prectr.state.system_limits import limit_advice

MAX_OPEN_FILES: Final = 256
"""Table files that a store keeps open at most."""
Changes = Mapping[bytes, bytes | None]
"""Changes of a micro-batch: key to new value, or to None to delete the key."""


class ReadableStore(Protocol):
    """Read access to a task's state."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`, in the order of the keys; None for a missing key."""

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the entries with start ≤ key < end, in key order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """Memory and layout of one store. Sizes are in bytes."""

    write_buffer: int = 16 << 20
    block_cache: int = 32 << 20
    bloom_bits: int = 10
    write_ahead_log: bool = True
    """Off where a crash rolls back to a checkpoint anyway (the embedded runner)."""
    read_only: bool = False
    """Open without writing, so that a checkpoint can be inspected unchanged."""
    statistics: bool = False
    """Enable RocksDB's statistics, from which `Store.stats` reports cache hits and write stalls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """Statistics of a store. Hits, misses and stalls are 0 unless `StoreOptions.statistics` is on.

    Attributes:
        keys: estimated number of keys.
        size: bytes of the live SST files.
        memory: bytes of the block cache and the write buffers.
        cache_hits, cache_misses: of the block cache, since the store was opened.
        stall_seconds: time since then for which RocksDB stalled writes.
    """

    keys: int
    size: int
    memory: int
    cache_hits: int = 0
    cache_misses: int = 0
    stall_seconds: float = 0.0


_EXPECTED_OPTIONS: Final[Mapping[str, Callable[[StoreOptions], str]]] = {
    "write_buffer_size": lambda o: str(o.write_buffer),
    "compression": lambda o: "kLZ4Compression",
    "filter_policy": lambda o: "bloomfilter" if o.bloom_bits else "nullptr",
    "merge_operator": lambda o: "nullptr",
}


_TICKER: Final = re.compile(
    r"^rocksdb\.(block\.cache\.hit|block\.cache\.miss|stall\.micros) COUNT : (\d+)$", re.MULTILINE
)


class Store:
    """The RocksDB of one task; only one process may have it open. A `write` is atomic."""

    def __init__(self, path: Path, options: StoreOptions = StoreOptions()) -> None:
        """Open the store at `path`, creating it if necessary.

        Raises:
            StateError: the folder cannot be opened, another process has it open, or the options were not applied.
        """
        self.path = path
        self.options = options
        self._failed = False
        self._write_options = rocksdict.WriteOptions()
        # The package's stub declares a method; it is a property.
        self._write_options.disable_wal = not options.write_ahead_log  # type: ignore[method-assign, assignment]
        with self._translate_errors("opened"):
            if options.read_only and not path.is_dir():
                raise StateError(f"{path}: there is no state store: name a folder that a run has written")
            make_private_folder(path.parent)
            self._db_options = _rocksdb_options(options)
            # On reopen the options of a column family are lost unless they are passed with its name.
            self._db = rocksdict.Rdict(
                str(path),
                options=self._db_options,
                column_families={"default": _rocksdb_options(options)},
                access_type=rocksdict.AccessType.read_only()
                if options.read_only
                else rocksdict.AccessType.read_write(),
            )
        if not options.read_only:
            self._assert_options()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`, in the order of the keys, None for a missing one; sorted keys are fastest."""
        if not keys:
            return []
        with self._translate_errors("read"):
            return cast("list[bytes | None]", self._db.get(list(keys)))

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the entries with start ≤ key < end, in key order."""
        with self._translate_errors("read"):
            for key, value in cast("Iterator[tuple[bytes, bytes]]", self._db.items(from_key=start)):
                if key >= end:
                    return
                yield key, value

    def write(self, changes: Changes) -> None:
        """Apply `changes` in one atomic WriteBatch."""
        if not changes:
            return
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes.items():
            if value is None:
                delete(key)
            else:
                put(key, value)
        with self._translate_errors("written"):
            self._db.write(batch, self._write_options)

    def checkpoint(self, target: Path) -> None:
        """Write a consistent copy of the store to `target`, which must not exist; SST files are hard links."""
        with self._translate_errors("copied"):
            rocksdict.Checkpoint(self._db).create_checkpoint(str(target))

    def estimate_keys(self) -> int:
        """Return RocksDB's estimate of the number of keys."""
        return self._property("estimate-num-keys")

    def stats(self) -> StoreStats:
        """Return the store's statistics; takes half a millisecond with RocksDB's statistics enabled."""
        with self._translate_errors("queried for statistics"):
            counts = dict(_TICKER.findall(self._db_options.get_statistics() or ""))
            return StoreStats(
                keys=self.estimate_keys(),
                size=self._property("live-sst-files-size"),
                memory=self._property("block-cache-usage") + self._property("cur-size-all-mem-tables"),
                cache_hits=int(counts.get("block.cache.hit", 0)),
                cache_misses=int(counts.get("block.cache.miss", 0)),
                stall_seconds=int(counts.get("stall.micros", 0)) / 1e6,
            )

    def _property(self, name: str) -> int:
        return self._db.property_int_value(f"rocksdb.{name}") or 0

    def close(self) -> None:
        """Close the store, so that another process may open it."""
        if self._failed:
            # The error has been raised already; RocksDB would raise it again for what it cannot flush.
            with suppress(Exception):
                self._db.close()
            return
        with self._translate_errors("closed"):
            self._db.close()

    @contextmanager
    def _translate_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (OSError, rocksdict.DbClosedError) as error:
            raise self._error(action, str(error), limit_advice(error)) from error
        except Exception as error:
            self._failed = True
            # rocksdict raises plain Exception for errors of RocksDB; any subclass is a bug of ours.
            if type(error) is not Exception:
                raise
            raise self._error(action, str(error), limit_advice(error)) from error

    def _error(self, action: str, message: str, limit: str) -> StateError:
        text = f"{self.path}: the state store could not be {action}: {message}"
        if limit:
            return SystemLimitError(f"{text} ({limit})")
        if "lock" in message.lower():
            return StateError(f"{text} (another process has it open: stop that one first)")
        return StateError(text)

    def _assert_options(self) -> None:
        files = sorted(self.path.glob("OPTIONS-*"), key=lambda file: int(file.name.partition("-")[2]))
        text = files[-1].read_text() if files else ""
        column_family = text.partition('[CFOptions "default"]')[2]
        for name, expected in _EXPECTED_OPTIONS.items():
            found = re.search(rf"^\s*{name}=(\S*)", column_family, re.MULTILINE)
            if found is None or found[1] != expected(self.options):
                actual = found[1] if found else "nothing"
                raise StateError(
                    f"{self.path}: RocksDB runs with {name}={actual}, not {expected(self.options)}: "
                    "delete the state folder or restore it from a snapshot"
                )


def _rocksdb_options(options: StoreOptions) -> rocksdict.Options:
    rocksdb = rocksdict.Options(raw_mode=True)
    rocksdb.create_if_missing(True)
    rocksdb.set_write_buffer_size(options.write_buffer)
    rocksdb.set_max_background_jobs(2)
    rocksdb.set_compression_type(rocksdict.DBCompressionType.lz4())
    rocksdb.set_keep_log_file_num(2)
    rocksdb.set_max_open_files(MAX_OPEN_FILES)
    # Otherwise a timer thread per store dumps all statistics to its log periodically, first after seconds.
    rocksdb.set_stats_dump_period_sec(0)
    rocksdb.set_stats_persist_period_sec(0)
    if options.statistics:
        rocksdb.enable_statistics()
    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(rocksdict.Cache(options.block_cache))
    if options.bloom_bits:
        table.set_bloom_filter(options.bloom_bits, False)
    rocksdb.set_block_based_table_factory(table)
    return rocksdb
