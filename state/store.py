"""A task's key-value state in RocksDB: sorted multi-gets, one atomic write a micro-batch, checkpoints."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import rocksdict

from prectr.state.errors import StateError

Changes = Mapping[bytes, bytes | None]
"""What a micro-batch changes: key to new value, or to None where the key goes."""


class ReadableStore(Protocol):
    """What a stage may ask of its state."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in their order; None where there is none."""

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start ≤ key < end, by key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """Memory and layout of one store. Sizes are in bytes."""

    write_buffer: int = 16 << 20
    block_cache: int = 32 << 20
    bloom_bits: int = 10
    write_ahead_log: bool = True
    """Off where a crash goes back to a checkpoint anyway (the embedded runner)."""
    read_only: bool = False
    """Nothing is written, so that a checkpoint can be looked at as it is."""
    statistics: bool = False
    """RocksDB counts what it does, so that `Store.figures` knows of hits and stalls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """How a store does. Sizes are in bytes; memory is that of block cache and write buffers.

    cache_hits, cache_misses: of the block cache, since the store was opened. stalled: seconds since then for which
    RocksDB held writes back. All three stay 0 where nothing is `counted`.
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
    """One RocksDB. Every entry belongs to one task; only one process may have it open.

    Nothing is read back before `write` returns, and a `write` is all or nothing.
    """

    def __init__(self, path: Path, options: StoreOptions = StoreOptions()) -> None:
        """Open the store at `path`, made if it is not there.

        Raises:
            StateError: the folder cannot be opened, is open elsewhere, or did not take the options.
        """
        self.path = path
        self.options = options
        self._failed = False
        self._write_options = rocksdict.WriteOptions()
        # The package's stub has this as a method; it is a property.
        self._write_options.disable_wal = not options.write_ahead_log  # type: ignore[method-assign, assignment]
        with self._translate_errors("opened"):
            if options.read_only and not path.is_dir():
                raise StateError(f"{path}: there is no state store: name a folder that a run has written")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db_options = _rocksdb_options(options)
            # RocksDB forgets the options of a column family on reopen unless they are named with it.
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
        """The values of `keys`, in their order; sorted keys are read fastest."""
        if not keys:
            return []
        with self._translate_errors("read"):
            return cast("list[bytes | None]", self._db.get(list(keys)))

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start ≤ key < end, by key."""
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
        """Write a consistent copy of the store to `target`, which must not exist; files are hard links."""
        with self._translate_errors("copied"):
            rocksdict.Checkpoint(self._db).create_checkpoint(str(target))

    def estimate_keys(self) -> int:
        """About how many keys there are."""
        return self._property("estimate-num-keys")

    def stats(self) -> StoreStats:
        """How the store does; takes half a millisecond where RocksDB counts what it does."""
        with self._translate_errors("asked how it does"):
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
        """Close the store; another process may open it then."""
        if self._failed:
            # What is wrong has been said; RocksDB would say it again, of whatever it cannot write.
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
            raise StateError(f"{self.path}: the state store could not be {action}: {error}") from error
        except Exception as error:
            self._failed = True
            # rocksdict raises plain Exception for whatever RocksDB reports; anything finer is a bug of ours.
            if type(error) is not Exception:
                raise
            raise StateError(f"{self.path}: the state store could not be {action}: {_remedy(str(error))}") from error

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
    rocksdb.set_max_open_files(256)
    # Each store would have a timer's thread write all its counts to its log now and then, the first within seconds.
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


def _remedy(message: str) -> str:
    if "No space left" in message:
        return f"{message} (the disk is full: free some space, then run the same command again)"
    if "lock" in message.lower():
        return f"{message} (another process has it open: stop that one first)"
    return message
