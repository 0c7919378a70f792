"""Everything that `bench.quality` has measured so far in one file, so that the whole can be done in pieces."""

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

_HOW_TO_FIX: Final = "move it away, or name another --record"

_Item = TypeVar("_Item")


class CommandRun(msgspec.Struct, frozen=True, kw_only=True):
    """A command that has added to the record, when and where it ran last, and how long it took."""

    command: str
    date: str
    machine: str
    versions: str
    seconds: float


class QualityResults(msgspec.Struct, kw_only=True):
    """What is known; a part that is measured again takes the place of what was there."""

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
        """Take in what was found in a world."""
        self.rows = _merge_by_key(self.rows, measured.rows, lambda row: (row.track, row.name, row.seed))
        self.resampled = _merge_by_key(self.resampled, measured.resampled, lambda one: (one.track, one.name, one.seed))
        self.levels = _merge_by_key(self.levels, measured.levels, lambda one: (one.track, one.name, one.seed))

    def add_curve(self, points: Iterable[CurvePoint]) -> None:
        """Take in points of learning curves."""
        self.curve = _merge_by_key(
            self.curve, points, lambda point: (point.pages, point.row.track, point.row.name, point.row.seed)
        )

    def add_drift(self, runs: Iterable[DriftRun]) -> None:
        """Take in runs through a world with drift."""
        self.drift = _merge_by_key(self.drift, runs, lambda run: (run.track, run.name, run.seed))

    def add_command(self, command: str, seconds: float) -> None:
        """Take in that a command has run, here and now."""
        run = CommandRun(
            command=command,
            date=time.strftime("%Y-%m-%d"),
            machine=machine(),
            versions=versions("torch", "numpy", "prectr-streaming"),
            seconds=seconds,
        )
        self.parts = _merge_by_key(self.parts, [run], lambda one: one.command)


def _merge_by_key(known: list[_Item], new: Iterable[_Item], key: Callable[[_Item], object]) -> list[_Item]:
    """What is known with the new in place of what has the same key, or behind it."""
    merged = {key(item): item for item in known}
    merged.update({key(item): item for item in new})
    return list(merged.values())


def results_path(folder: Path, pages: int, days: float) -> Path:
    """The file of the record of worlds of this size."""
    return folder / f"quality-{pages}-{days:g}.json"


def read_results(folder: Path, pages: int, days: float) -> QualityResults:
    """The record so far, empty where there is none; PrectrError: the file is damaged, or of another format."""
    path = results_path(folder, pages, days)
    if not path.is_file():
        return QualityResults(pages=pages, days=days)
    try:
        results = msgspec.json.decode(path.read_bytes(), type=QualityResults)
    except msgspec.DecodeError as error:
        raise PrectrError(
            f"{path} is no record of bench.quality: {error}; delete it, or name another --record"
        ) from error
    if results.format != FORMAT_VERSION:
        raise PrectrError(
            f"{path} is of format {results.format}, this is {FORMAT_VERSION}; delete it, or name another --record"
        )
    return results


@contextmanager
def update_results(folder: Path, pages: int, days: float) -> Iterator[QualityResults]:
    """The record, to be changed; several commands may run beside each other."""
    path = results_path(folder, pages, days)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = read_results(folder, pages, days)
        yield results
        staging = path.with_suffix(".part")
        staging.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
        staging.replace(path)
