"""Several writers of one task save and prune at once, stall, fail and die: no complete snapshot is ever lost."""

import datetime
import itertools
from pathlib import Path
from threading import Semaphore, Thread

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.state.errors import StateError
from prectr.state.snapshots.storage import SnapshotStorage
from prectr.state.snapshots.task_snapshots import TaskSnapshots
from tests.kit.stages.snapshots import (
    HookedStorage,
    Origin,
    checkpoint,
    complete_snapshots_in_memory,
    contents,
    files_of,
)

ROOTS = itertools.count()
ENDS_AT = 8
"""Offsets up to which a writer saves."""


class Died(BaseException):
    """Raised when a writer's process dies."""


class Owner:
    """A writer whose saves pause before each storage operation until `go` continues them."""

    def __init__(self, url: str, folder: Path, keep: int, offset: int) -> None:
        """at: the operation that it is paused before. saved: offset of its last completed save."""
        self.offset = offset
        self.saved: int | None = None
        self.working = False
        self.at = ""
        self._outcome = ""
        self._go, self._stands = Semaphore(0), Semaphore(0)
        self._folder = folder
        self._snapshots = TaskSnapshots(HookedStorage(url, self._before, self._written), "t", Origin(), keep)

    def go(self, how: str = "") -> None:
        """Continue by one operation. how: 'fail', 'fail after' or 'die' instead of executing it."""
        self._outcome = how
        if self.working:
            self._go.release()
        else:
            self.working = True
            Thread(target=self._save, daemon=True).start()
        self._stands.acquire()

    def _before(self, step: str) -> None:
        self.at = step
        self._stands.release()
        self._go.acquire()
        if self._outcome == "die":
            raise Died
        if self._outcome == "fail":
            raise StateError("no answer")

    def _written(self, path: str) -> None:
        if self._outcome == "fail after":
            raise StateError("no answer")

    def _save(self) -> None:
        try:
            self._snapshots.save(checkpoint(self._folder, self.offset), self.offset, 0.0)
            self.saved = self.offset
            self._snapshots.prune()
        except (StateError, Died):
            pass
        finally:
            self.offset = min(self.offset + 1, ENDS_AT)
            self.working = False
            self._stands.release()


class Task:
    """Writers of one task, and the invariants between any two of their operations."""

    def __init__(self, keep: int, folder: Path) -> None:
        self.root = f"owners-{next(ROOTS)}"
        self.owners: dict[int, Owner] = {}
        self._keep = keep
        self._folder = folder
        self._finished = -1
        self.newest: int | None = None
        """Return the offset of the newest snapshot in the end."""

    def step(self, number: int, how: str = "", offset: int = 0) -> None:
        owner = self.owners.get(number)
        if owner is None:
            owner = self.owners[number] = Owner(f"memory://{self.root}", self._folder, self._keep, offset)
        owner.go(how)
        if how == "die" and not owner.working:
            self.owners[number] = Owner(f"memory://{self.root}", self._folder, self._keep, owner.offset)
        if owner.saved is not None:
            self._finished = max(self._finished, owner.saved)
        self.check()

    def save(self, number: int, offset: int, before: str = "") -> None:
        """Start a save at `offset` and run it to its end, or until it is paused before an operation."""
        if number in self.owners:
            self.owners[number].offset = offset
        self.step(number, offset=offset)
        self.go_on(number, before)

    def go_on(self, number: int, before: str = "") -> None:
        owner = self.owners[number]
        while owner.working and not (before and owner.at.startswith(before)):
            self.step(number)
        assert owner.working == bool(before), f"it never came to {before}"

    def a_day_passes(self) -> None:
        if not any(owner.working for owner in self.owners.values()):
            for path, file in MemoryFileSystem.store.items():
                if path.startswith(f"/{self.root}/"):
                    file.modified -= datetime.timedelta(days=2)

    def check(self) -> None:
        """The newest snapshot that was ever completed, or a newer one, is complete."""
        whole = complete_snapshots_in_memory(f"{self.root}/t")
        assert max(whole, default=-1) >= self._finished
        for offset, files in whole.items():
            assert files == contents(offset)

    def end(self) -> None:
        for owner in self.owners.values():
            while owner.working:
                owner.go()
            self.check()
        self.newest = newest = max(complete_snapshots_in_memory(f"{self.root}/t"), default=None)
        target = self._folder / f"store-{self.root}"
        assert TaskSnapshots(SnapshotStorage(f"memory://{self.root}"), "t", Origin()).restore(target) == newest
        assert newest is None or files_of(target) == contents(newest)
        for path in [path for path in MemoryFileSystem.store if path.startswith(f"/{self.root}/")]:
            del MemoryFileSystem.store[path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("owners")


# The races one by one; with two snapshots to keep they need more saves, but are no different.


def test_pruning_keeps_files_that_a_writer_still_references(folder: Path) -> None:
    task = Task(1, folder)
    task.save(0, 1)
    task.save(1, 2, before="delete manifests")
    task.save(0, 3)
    task.go_on(1)
    task.end()
    assert task.newest == 3


def test_a_writer_whose_last_manifest_is_pruned_uploads_everything_again(folder: Path) -> None:
    task = Task(1, folder)
    task.save(0, 1)
    task.save(0, 3, before="write manifests")
    task.save(1, 2)
    task.go_on(0)
    task.end()
    assert task.newest == 3


def test_a_zombie_that_wakes_while_pruning_does_not_delete_what_has_come_back_since(folder: Path) -> None:
    task = Task(1, folder)
    task.save(1, 1)
    # Its log is empty at 1 and 5, and is not at 2.
    task.save(1, 2, before="delete manifests")
    task.save(0, 0, before="delete files")
    task.go_on(1)
    task.save(1, 5)
    task.go_on(0)
    task.end()
    assert task.newest == 5


def test_a_zombie_neither_hides_nor_prunes_what_its_successor_has_saved(folder: Path) -> None:
    task = Task(2, folder)
    task.save(0, 1)
    task.save(0, 2, before="write manifests")
    for offset in (3, 4, 5):
        task.save(1, offset)
    task.go_on(0)
    assert sorted(complete_snapshots_in_memory(f"{task.root}/t")) == [2, 4, 5]
    task.save(1, 6)
    assert sorted(complete_snapshots_in_memory(f"{task.root}/t")) == [5, 6]
    task.end()
    assert task.newest == 6


def test_a_manifest_that_was_written_though_the_write_failed_can_be_pruned_without_harm(folder: Path) -> None:
    task = Task(1, folder)
    task.save(0, 1, before="write manifests")
    task.step(0, "fail after")
    assert not task.owners[0].working
    task.save(0, 3, before="write manifests")
    task.save(1, 2)
    task.go_on(0)
    task.end()
    assert task.newest == 3


def test_pruning_spares_the_files_of_a_save_that_is_under_way(folder: Path) -> None:
    task = Task(1, folder)
    task.save(0, 3, before="write manifests")
    task.save(1, 1)
    task.save(1, 2)
    task.go_on(0)
    task.end()
    assert task.newest == 3


GOES_ON = st.tuples(st.integers(0, 2), st.integers(1, 40), st.just(""))
FAILS = st.tuples(st.integers(0, 2), st.just(1), st.sampled_from(["fail", "fail after", "die", "day"]))


@given(moves=st.lists(st.one_of(GOES_ON, GOES_ON, FAILS), max_size=25), keep=st.integers(1, 3))
@settings(max_examples=40)
def test_a_complete_snapshot_is_never_lost_whatever_three_writers_do(
    moves: list[tuple[int, int, str]], keep: int, folder: Path
) -> None:
    task = Task(keep, folder)
    for number, steps, how in moves:
        for _ in range(steps):
            if how == "day":
                task.a_day_passes()
            else:
                task.step(number, how, offset=number)
    task.end()
