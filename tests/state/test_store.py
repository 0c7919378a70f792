"""The store: options after a reopen, atomic writes, bounds of scans, checkpoints, and clear errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import rocksdict
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.state.errors import StateError
from prectr.state.store import Store, StoreOptions
from tests.kit.stages.store import DictStore

SMALL = StoreOptions(write_buffer=1 << 20, block_cache=1 << 20)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", SMALL)


def everything(store: Store) -> dict[bytes, bytes]:
    return dict(store.scan(b"", b"\xff" * 16))


def contents(path: Path) -> dict[str, bytes]:
    """All files except RocksDB's log."""
    return {file.name: file.read_bytes() for file in path.iterdir() if not file.name.startswith("LOG")}


def effective_options(path: Path) -> dict[str, str]:
    """The default column family's options, as written by RocksDB at the last open."""
    newest = max(path.glob("OPTIONS-*"), key=lambda file: int(file.name.split("-")[1]))
    section = newest.read_text().split('[CFOptions "default"]')[1]
    pairs = (line.strip().partition("=") for line in section.splitlines())
    return {name: value for name, _, value in pairs}


def test_values_come_in_the_order_of_the_keys_and_none_where_there_is_none(store: Store) -> None:
    store.write({b"a": b"1", b"b": b"", b"c\0": b"3"})
    assert store.get_many([b"c\0", b"x", b"a", b"b", b"a"]) == [b"3", None, b"1", b"", b"1"]
    assert store.get_many([]) == []


def test_none_deletes_and_an_empty_write_is_nothing(store: Store) -> None:
    store.write({b"a": b"1", b"b": b"2"})
    store.write({b"a": None, b"gone": None, b"b": b"3"})
    store.write({})
    assert everything(store) == {b"b": b"3"}


def test_scan_takes_the_start_and_leaves_out_the_end(store: Store) -> None:
    keys = [b"a", b"b", b"b\0", b"b\xff", b"c", b"\xff"]
    store.write({key: key for key in keys})
    assert [key for key, _ in store.scan(b"b", b"c")] == [b"b", b"b\0", b"b\xff"]
    assert [key for key, _ in store.scan(b"b\0", b"b\xff")] == [b"b\0"]
    assert list(store.scan(b"d", b"e")) == []
    assert list(store.scan(b"c", b"b")) == []


def test_scan_sees_the_state_at_its_call(store: Store) -> None:
    store.write({b"a": b"1", b"b": b"2"})
    scan = store.scan(b"", b"z")
    assert next(scan) == (b"a", b"1")
    store.write({b"b": None, b"c": b"3"})
    assert list(scan) == [(b"b", b"2")]


_keys = st.binary(min_size=1, max_size=3)
_changes = st.dictionaries(_keys, st.none() | st.binary(max_size=4), max_size=6)


@settings(max_examples=25)
@given(writes=st.lists(_changes, max_size=6), start=_keys, end=_keys, wanted=st.lists(_keys, max_size=8))
def test_agrees_with_a_dict_also_after_a_reopen(
    writes: list[dict[bytes, bytes | None]],
    start: bytes,
    end: bytes,
    wanted: list[bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("agrees") / "store"
    model, store = DictStore(), Store(path, SMALL)
    for changes in writes:
        model.write(changes)
        store.write(changes)
    for opened in (store, None):
        store = opened or Store(path, SMALL)
        assert store.get_many(wanted) == model.get_many(wanted)
        assert list(store.scan(start, end)) == list(model.scan(start, end))
        store.close()


@pytest.mark.parametrize("bloom_bits", [0, 10])
def test_options_hold_after_every_reopen(tmp_path: Path, bloom_bits: int) -> None:
    options = StoreOptions(write_buffer=3 << 20, bloom_bits=bloom_bits)
    for _ in range(3):
        Store(tmp_path / "store", options).close()
        effective = effective_options(tmp_path / "store")
        assert effective["write_buffer_size"] == str(3 << 20)
        assert effective["compression"] == "kLZ4Compression"
        assert effective["merge_operator"] == "nullptr"
        assert effective["filter_policy"].startswith("nullptr" if bloom_bits == 0 else "bloomfilter")


def test_options_not_applied_are_an_error_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the column family's options are not passed again, rocksdict uses the defaults."""
    Store(tmp_path / "store", SMALL).close()
    plain = rocksdict.Options(raw_mode=True)
    monkeypatch.setattr("prectr.state.store._rocksdb_options", lambda options: plain)
    with pytest.raises(StateError, match=r"RocksDB runs with write_buffer_size=\d+, not 1048576: delete the state"):
        Store(tmp_path / "store", SMALL)


def test_a_store_without_written_options_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.close()
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    with pytest.raises(StateError, match="write_buffer_size=nothing"):
        Store(store.path, SMALL)


def test_a_write_is_all_or_nothing_whenever_the_process_is_killed(tmp_path: Path) -> None:
    """Each write sets 300 keys to one value: whatever write a kill interrupts, all keys have the same value."""
    writes = (
        "import sys; from pathlib import Path; from prectr.state.store import Store\n"
        "store, keys = Store(Path(sys.argv[1])), [b'%03d' % key for key in range(300)]\n"
        "for number in range(1 << 30):\n"
        "    store.write(dict.fromkeys(keys, b'%d' % number * 20)); print(number, flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", writes, str(tmp_path / "store")], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while int(process.stdout.readline()) < 40:
        pass
    process.kill()
    acknowledged = process.communicate()[0].split()
    values = set(everything(Store(tmp_path / "store")).values())
    assert len(values) == 1
    (value,) = values
    assert int(value[: len(value) // 20]) >= int(acknowledged[-1] if acknowledged else 40)


def test_written_entries_outlive_a_process_that_dies_without_closing(tmp_path: Path) -> None:
    """With the write-ahead log on: each write is complete."""
    dies = (
        "import os, sys; from pathlib import Path; from prectr.state.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "store.write({b'a': b'1', b'b': b'2'}); store.write({b'a': None, b'c': b'3'})\n"
        "os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", dies, str(tmp_path / "store")], cwd=REPOSITORY, check=False)
    assert done.returncode == 9
    assert everything(Store(tmp_path / "store")) == {b"b": b"2", b"c": b"3"}


@pytest.mark.parametrize("log", [True, False])
def test_a_checkpoint_is_consistent_and_independent_of_later_writes(tmp_path: Path, log: bool) -> None:
    """It includes what was only in memory, even without a write-ahead log."""
    options = StoreOptions(write_ahead_log=log)
    store = Store(tmp_path / "store", options)
    before = {b"%04d" % number: os.urandom(50) for number in range(500)}
    store.write(before)
    store.checkpoint(tmp_path / "checkpoint")
    store.write(dict.fromkeys(before))
    store.write({b"later": b"1"})
    taken = Store(tmp_path / "checkpoint", StoreOptions(read_only=True))
    assert everything(taken) == before
    taken.close()
    reopened = Store(tmp_path / "checkpoint", options)
    reopened.write({b"0000": b"mine"})
    assert everything(store) == {b"later": b"1"}
    assert reopened.get_many([b"0000"]) == [b"mine"]


def test_a_checkpoint_over_something_is_an_error(store: Store, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(StateError, match="could not be copied"):
        store.checkpoint(tmp_path / "there")


def test_read_only_changes_nothing_on_the_disk(store: Store) -> None:
    store.write({b"a": b"1"})
    store.close()
    before = contents(store.path)
    looked_at = Store(store.path, StoreOptions(read_only=True))
    assert looked_at.get_many([b"a"]) == [b"1"]
    with pytest.raises(StateError, match="could not be written"):
        looked_at.write({b"a": b"2"})
    looked_at.close()
    assert contents(store.path) == before
    assert everything(Store(store.path, SMALL)) == {b"a": b"1"}


def test_read_only_of_a_missing_folder_is_an_error_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"missing: there is no state store: name a folder"):
        Store(tmp_path / "missing", StoreOptions(read_only=True))
    assert not (tmp_path / "missing").exists()


def test_a_store_that_another_process_has_open_is_a_clear_error(store: Store) -> None:
    opens = (
        "import sys; from pathlib import Path; from prectr.state.store import Store, StateError\n"
        "try: Store(Path(sys.argv[1]))\n"
        "except StateError as error: print(error); sys.exit(3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", opens, str(store.path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert str(store.path) in done.stdout
    assert "another process has it open: stop that one first" in done.stdout


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="file"):
        Store(tmp_path / "file" / "store", SMALL)


def test_a_corrupt_store_is_a_clear_error(store: Store) -> None:
    store.write({b"a": b"1"})
    store.close()
    (store.path / "CURRENT").write_text("nonsense\n")
    with pytest.raises(StateError, match=r"store: the state store could not be opened"):
        Store(store.path, SMALL)


def test_a_full_disk_is_named_with_what_to_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk:
        def write(self, batch: object, options: object) -> None:
            raise Exception("IO error: No space left on device: While appending to file")

    monkeypatch.setattr(store, "_db", FullDisk())
    with pytest.raises(
        StateError, match="the disk is full, or has no inodes left: free some space, then run the same command again"
    ):
        store.write({b"a": b"1"})


def test_a_closed_store_cannot_be_used(store: Store) -> None:
    store.close()
    with pytest.raises(StateError, match="could not be read"):
        store.get_many([b"a"])
    with pytest.raises(StateError, match="could not be written"):
        store.write({b"a": b"1"})


def test_keys_counts_about(store: Store) -> None:
    store.write({b"%03d" % number: b"" for number in range(300)})
    assert store.estimate_keys() == 300
