"""Drives stage `join` over a log, record by record or in micro-batches, with crashes, and collects its output."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from random import Random
from typing import Final

import msgspec

from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.event_clock import ClockState
from prectr.stream.join.operator import RejectedRecord
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.join.state import META_KEY, JoinMeta, encode_meta
from prectr.stream.records import JoinedPage, decode_history, encode_record
from prectr.stream.stages import JoinStage, decode_batch, open_join
from tests.kit.stages.events import LATENESS, T, click
from tests.kit.stages.store import DictStore
from tests.oracle.world import Disorder, make_world

DISORDER = Disorder(
    pages=60, users=7, gap=25.0, late=0.1, jump=0.03, nights=1, confirmed_jumps=1, malformed=0.05, conflict=0.05
)


@cache
def world(seed: int) -> tuple[bytes, ...]:
    return tuple(make_world(seed, DISORDER))


class CrashPoint(Enum):
    """Where a task crashes; it is restored from its store."""

    PROCESSED = "after `process` and the commit of what it put out, before the state is written"
    WRITTEN = "after the state is written"


NO_CRASH: Final[Mapping[int, CrashPoint]] = {}


class JoinDriver:
    """Feeds one task from a log and collects its committed outputs, each exactly once.

    After a crash the task is restored from the store and reads from the store's offset. Its outputs up to the number
    committed must be the same again, and are suppressed.
    """

    def __init__(self, config: PipelineConfig | None = None, store: DictStore | None = None) -> None:
        self.config = config or PipelineConfig()
        self.store = store or DictStore()
        self.joined_pages: list[JoinedPage] = []
        self.dead_letters: list[RejectedRecord] = []
        self._written = (0, 0)
        self._next = (0, 0)
        self.task = self._open()

    @property
    def outcomes(self) -> Outcomes:
        return self.task.outcomes

    def run(self, lines: Sequence[bytes], sizes: Iterator[int], crashes: Mapping[int, CrashPoint] = NO_CRASH) -> None:
        """Process `lines` in micro-batches of `sizes`; crash once at the first batch that ends at or after each offset
        in `crashes`."""
        remaining_crashes = dict(crashes)
        while self.task.next_offset < len(lines):
            start = self.task.next_offset
            end = min(len(lines), start + next(sizes))
            batch = lines[start:end]
            self._commit(*self.task.process(decode_batch(batch, range(start, end)), end))
            due = [position for position in remaining_crashes if position <= end]
            crash_points = {remaining_crashes.pop(position) for position in due}
            if CrashPoint.PROCESSED in crash_points:
                self.task = self._open()
                continue
            self.write()
            if CrashPoint.WRITTEN in crash_points:
                self.task = self._open()

    def write(self) -> None:
        self.store.write(self.task.drain_changes())
        self._written = self._next

    def flush(self) -> None:
        self._commit(self.task.flush(), [])
        self.write()

    def _open(self) -> JoinStage:
        self._next = self._written
        return open_join(self.config, self.store, LexicalLabeller())

    def _commit(self, joined_pages: list[JoinedPage], dead_letters: list[RejectedRecord]) -> None:
        joined_count, dead_letter_count = self._next
        self._next = (
            _append_new(self.joined_pages, joined_pages, joined_count),
            _append_new(self.dead_letters, dead_letters, dead_letter_count),
        )


def _append_new(committed: list, emitted: list, number: int) -> int:  # type: ignore[type-arg]
    """Append the new outputs from `number` on; those committed before must be repeated unchanged."""
    repeated = min(len(committed) - number, len(emitted))
    assert emitted[:repeated] == committed[number : number + repeated]
    committed.extend(emitted[repeated:])
    return number + len(emitted)


def one_by_one() -> Iterator[int]:
    while True:
        yield 1


def all_at_once() -> Iterator[int]:
    while True:
        yield 1 << 30


def random_sizes(seed: int, max_size: int = 12) -> Iterator[int]:
    rng = Random(seed)
    while True:
        yield rng.randint(1, max_size)


def encoded(records: Sequence[msgspec.Struct]) -> list[bytes]:
    """Encode each record, for a comparison bit for bit."""
    return [encode_record(record) for record in records]


def settled_store(accepted: int | None) -> DictStore:
    """The store of a task whose clock has come to a time before the log begins; None for a new task."""
    return DictStore({META_KEY: encode_meta(JoinMeta(clock=ClockState(accepted)))})


def run(
    *lines: bytes, config: PipelineConfig | None = None, flush: bool = False, settled_at: int | None = T
) -> JoinDriver:
    """Process the lines one by one, in a task whose clock stands at T."""
    driver = JoinDriver(config, settled_store(settled_at))
    driver.run(lines, one_by_one())
    if flush:
        driver.flush()
    return driver


def advance_watermark(ts: int, user_id: str = "other") -> bytes:
    """A record that advances the watermark to `ts`: a click without a page."""
    return click("no such page", user_id, ts + LATENESS)


def clicks_of(driver: JoinDriver) -> dict[str, int]:
    """Click outcomes that are not zero, except those received."""
    return _found(driver.outcomes.clicks)


def pages_of(driver: JoinDriver) -> dict[str, int]:
    return _found(driver.outcomes.pages)


def _found(counts: msgspec.Struct) -> dict[str, int]:
    return {name: count for name, count in msgspec.structs.asdict(counts).items() if count and name != "received"}


def history_of(joined_page: JoinedPage) -> list[tuple[int, str, str]]:
    return [(entry.ts, entry.request_id, entry.item_id) for entry in decode_history(joined_page.history)]
