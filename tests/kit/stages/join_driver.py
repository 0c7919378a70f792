"""Drives stage `sessions` over a log, record by record or in micro-batches, with crashes; and says what came out."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from random import Random
from typing import Final

import msgspec

from prectr.stream.config import PipelineConfig
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.operator import MicroBatch, Refused, Sessions
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.records import Activity, decode_history, encode_record
from tests.kit.stages.events import LATENESS, click
from tests.kit.stages.store import DictStore
from tests.oracle.world import Disorder, make_world

DISORDER = Disorder(
    pages=60, users=7, gap=25.0, late=0.1, jump=0.03, nights=1, confirmed_jumps=1, malformed=0.05, conflict=0.05
)


@cache
def world(seed: int) -> tuple[bytes, ...]:
    return tuple(make_world(seed, DISORDER))


class Crash(Enum):
    """Where a task dies; it goes on from its store."""

    PROCESSED = "after `process` and the commit of what it put out, before the state is written"
    WRITTEN = "after the state is written"


NO_CRASH: Final[Mapping[int, Crash]] = {}


class SessionsDriver:
    """Feeds one task from a log, and keeps what is committed: outputs numbered, each put out once.

    After a crash the task is made anew from the store and reads on from the store's position. What it puts out up
    to the number committed must be the same again, and is suppressed.
    """

    def __init__(self, config: PipelineConfig | None = None, store: DictStore | None = None) -> None:
        self.config = config or PipelineConfig()
        self.store = store or DictStore()
        self.activities: list[Activity] = []
        self.refused: list[Refused] = []
        self._written = (0, 0)
        self._next = (0, 0)
        self.task = self._open()

    @property
    def outcomes(self) -> Outcomes:
        return self.task.outcomes

    def run(self, lines: Sequence[bytes], sizes: Iterator[int], crashes: Mapping[int, Crash] = NO_CRASH) -> None:
        """Process `lines` in micro-batches of `sizes`; crash, once each, at the first batch that ends at or behind the
        positions in `crashes`."""
        left = dict(crashes)
        while self.task.position < len(lines):
            start = self.task.position
            end = min(len(lines), start + next(sizes))
            batch = lines[start:end]
            self._commit(*self.task.process(MicroBatch(decode_lines(batch), batch, range(start, end)), end))
            due = [position for position in left if position <= end]
            points = {left.pop(position) for position in due}
            if Crash.PROCESSED in points:
                self.task = self._open()
                continue
            self.write()
            if Crash.WRITTEN in points:
                self.task = self._open()

    def write(self) -> None:
        self.store.write(self.task.take_changes())
        self._written = self._next

    def flush(self) -> None:
        self._commit(self.task.flush(), [])
        self.write()

    def _open(self) -> Sessions:
        self._next = self._written
        return Sessions(self.config, self.store, LexicalLabeller())

    def _commit(self, activities: list[Activity], refused: list[Refused]) -> None:
        shown, buried = self._next
        self._next = (_append(self.activities, activities, shown), _append(self.refused, refused, buried))


def _append(committed: list, put_out: list, number: int) -> int:  # type: ignore[type-arg]
    """Append what is new from output `number` on; what was committed before must come again as it was."""
    again = min(len(committed) - number, len(put_out))
    assert put_out[:again] == committed[number : number + again]
    committed.extend(put_out[again:])
    return number + len(put_out)


def one_by_one() -> Iterator[int]:
    while True:
        yield 1


def all_at_once() -> Iterator[int]:
    while True:
        yield 1 << 30


def random_sizes(seed: int, most: int = 12) -> Iterator[int]:
    rng = Random(seed)
    while True:
        yield rng.randint(1, most)


def encoded(records: Sequence[msgspec.Struct]) -> list[bytes]:
    """The bytes of each record, for a comparison bit for bit."""
    return [encode_record(record) for record in records]


def run(*lines: bytes, config: PipelineConfig | None = None, flush: bool = False) -> SessionsDriver:
    driver = SessionsDriver(config)
    driver.run(lines, one_by_one())
    if flush:
        driver.flush()
    return driver


def later(ts: int, user_id: str = "other") -> bytes:
    """A record that moves the watermark to `ts`: a click that finds no page."""
    return click("no such page", user_id, ts + LATENESS)


def clicks_of(driver: SessionsDriver) -> dict[str, int]:
    """Click outcomes that are not zero, without the clicks of `later`."""
    counts = driver.outcomes.clicks
    names = ("joined", "duplicate", "late", "orphan", "foreign", "waiting", "dead_letter")
    return {name: count for name in names if (count := getattr(counts, name))}


def pages_of(driver: SessionsDriver) -> dict[str, int]:
    counts = driver.outcomes.impressions
    return {name: count for name in ("emitted", "open", "duplicate", "dead_letter") if (count := getattr(counts, name))}


def history_of(activity: Activity) -> list[tuple[int, str, str]]:
    return [(found.ts, found.request_id, found.item_id) for found in decode_history(activity.history)]
