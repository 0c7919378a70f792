"""The record: all results of `bench.quality` so far in one JSON file, which commands add to piece by piece."""

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from bench.provenance import machine, versions
from bench.quality.bootstrap import BootstrapResult
from bench.quality.rows import Row
from bench.world.drift import DriftRun
from bench.world.learning_curve import CurvePoint
from bench.world.run_world import LevelAccuracy, WorldResults
from prectr.state.errors import PrectrError

FORMAT_VERSION: Final = 1


_Item = TypeVar("_Item")


class CommandRun(msgspec.Struct, frozen=True, kw_only=True):
    """A command that added to the record: date and machine of its latest run, and its duration."""

    command: str
    date: str
    machine: str
    versions: str
    seconds: float


class QualityResults(msgspec.Struct, kw_only=True):
    """All results; a part that is measured again replaces the earlier one."""

    format: int = FORMAT_VERSION
    pages: int
    days: float
    stage_one: dict[str, Any] = {}
    settings: dict[str, str] = {}
    parts: list[CommandRun] = []
    rows: list[Row] = []
    resampled: list[BootstrapResult] = []
    levels: list[LevelAccuracy] = []
    curve: list[CurvePoint] = []
    drift: list[DriftRun] = []
    relevance: dict[str, Any] = {}

    def add(self, measured: WorldResults) -> None:
        """Add the results of one world."""
        self.rows = _merge_by_key(self.rows, measured.rows, lambda row: (row.track, row.name, row.seed))
        self.resampled = _merge_by_key(self.resampled, measured.resampled, lambda one: (one.track, one.name, one.seed))
        self.levels = _merge_by_key(self.levels, measured.levels, lambda one: (one.track, one.name, one.seed))

    def add_curve(self, points: Iterable[CurvePoint]) -> None:
        """Add points of learning curves."""
        self.curve = _merge_by_key(
            self.curve, points, lambda point: (point.pages, point.row.track, point.row.name, point.row.seed)
        )

    def add_drift(self, runs: Iterable[DriftRun]) -> None:
        """Add runs of a world with drift."""
        self.drift = _merge_by_key(self.drift, runs, lambda run: (run.track, run.name, run.seed))

    def add_command(self, command: str, seconds: float) -> None:
        """Record that a command has run, with date, machine and versions."""
        run = CommandRun(
            command=command,
            date=time.strftime("%Y-%m-%d"),
            machine=machine(),
            versions=versions("torch", "numpy", "prectr-streaming"),
            seconds=seconds,
        )
        self.parts = _merge_by_key(self.parts, [run], lambda one: one.command)


def _merge_by_key(known: list[_Item], new: Iterable[_Item], key: Callable[[_Item], object]) -> list[_Item]:
    """Replace known items that have the key of a new one; append the other new ones."""
    merged = {key(item): item for item in known}
    merged.update({key(item): item for item in new})
    return list(merged.values())


def results_path(folder: Path, pages: int, days: float) -> Path:
    """Path of the record for worlds of this size."""
    return folder / f"quality-{pages}-{days:g}.json"


def read_results(folder: Path, pages: int, days: float) -> QualityResults:
    """Read the record; empty if there is none.

    Raises:
        PrectrError: the file is corrupt, or has another format version.
    """
    path = results_path(folder, pages, days)
    if not path.is_file():
        return QualityResults(pages=pages, days=days)
    try:
        results = msgspec.json.decode(path.read_bytes(), type=QualityResults)
    except msgspec.DecodeError as error:
        raise PrectrError(
            f"{path} is not a record of bench.quality: {error}; delete it, or give another --record"
        ) from error
    if results.format != FORMAT_VERSION:
        raise PrectrError(
            f"{path} has format {results.format}, expected {FORMAT_VERSION}; delete it, or give another --record"
        )
    return results


@contextmanager
def update_results(folder: Path, pages: int, days: float) -> Iterator[QualityResults]:
    """Open the record for an update, under a file lock, so that concurrent commands can add to it."""
    path = results_path(folder, pages, days)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = read_results(folder, pages, days)
        yield results
        staging = path.with_suffix(".part")
        staging.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
        staging.replace(path)
