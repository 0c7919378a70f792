"""Everything that `bench.quality` has measured so far in one file, so that the whole can be done in pieces."""

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from bench.provenance import machine, versions
from bench.quality.bootstrap import Resampled
from bench.quality.rows import Row
from bench.world.drift import DriftRun
from bench.world.learning_curve import CurvePoint
from bench.world.run_world import Levels, Measured
from prectr.state.errors import PrectrError

FORMAT: Final = 1

_NEXT: Final = "move it away, or name another --record"

_Item = TypeVar("_Item")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A command that has added to the record, when and where it ran last, and how long it took."""

    command: str
    date: str
    machine: str
    versions: str
    seconds: float


class Record(msgspec.Struct, kw_only=True):
    """What is known; a part that is measured again takes the place of what was there."""

    format: int = FORMAT
    pages: int
    days: float
    stage_one: dict[str, Any] = {}
    settings: dict[str, str] = {}
    parts: list[Part] = []
    rows: list[Row] = []
    resampled: list[Resampled] = []
    levels: list[Levels] = []
    curve: list[CurvePoint] = []
    drift: list[DriftRun] = []
    relevance: dict[str, Any] = {}

    def add(self, measured: Measured) -> None:
        """Take in what was found in a world."""
        self.rows = _merged(self.rows, measured.rows, lambda row: (row.track, row.name, row.seed))
        self.resampled = _merged(self.resampled, measured.resampled, lambda one: (one.track, one.name, one.seed))
        self.levels = _merged(self.levels, measured.levels, lambda one: (one.track, one.name, one.seed))

    def add_curve(self, points: Iterable[CurvePoint]) -> None:
        """Take in points of learning curves."""
        self.curve = _merged(
            self.curve, points, lambda point: (point.pages, point.row.track, point.row.name, point.row.seed)
        )

    def add_drift(self, runs: Iterable[DriftRun]) -> None:
        """Take in runs through a world with drift."""
        self.drift = _merged(self.drift, runs, lambda run: (run.track, run.name, run.seed))

    def add_part(self, command: str, seconds: float) -> None:
        """Take in that a command has run, here and now."""
        part = Part(
            command=command,
            date=time.strftime("%Y-%m-%d"),
            machine=machine(),
            versions=versions("torch", "numpy", "prectr-streaming"),
            seconds=seconds,
        )
        self.parts = _merged(self.parts, [part], lambda one: one.command)


def _merged(known: list[_Item], new: Iterable[_Item], key: Callable[[_Item], object]) -> list[_Item]:
    """What is known with the new in place of what has the same key, or behind it."""
    merged = {key(item): item for item in known}
    merged.update({key(item): item for item in new})
    return list(merged.values())


def record_path(folder: Path, pages: int, days: float) -> Path:
    """The file of the record of worlds of this size."""
    return folder / f"quality-{pages}-{days:g}.json"


def read_record(folder: Path, pages: int, days: float) -> Record:
    """The record so far, empty where there is none; PrectrError: the file is damaged, or of another format."""
    path = record_path(folder, pages, days)
    if not path.is_file():
        return Record(pages=pages, days=days)
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except msgspec.DecodeError as error:
        raise PrectrError(
            f"{path} is no record of bench.quality: {error}; delete it, or name another --record"
        ) from error
    if record.format != FORMAT:
        raise PrectrError(f"{path} is of format {record.format}, this is {FORMAT}; delete it, or name another --record")
    return record


@contextmanager
def changing(folder: Path, pages: int, days: float) -> Iterator[Record]:
    """The record, to be changed; several commands may run beside each other."""
    path = record_path(folder, pages, days)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = read_record(folder, pages, days)
        yield record
        aside = path.with_suffix(".part")
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
        aside.replace(path)
