"""Writes the events of a simulated world as JSON lines, in the order in which they arrive."""

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from prectr.state.errors import PrectrError, UsageError
from prectr.stream.simulator.catalogue import Catalogue
from prectr.stream.simulator.corruption import DUPLICATED, MALFORMED, MAX_DELAY_MS, UNKNOWN, malform
from prectr.stream.simulator.world import ATTRIBUTION_MS, START_MS, Block, World

_GZIP_LEVEL: Final = 4


class LogCounts(msgspec.Struct):
    """What a log holds; impressions are items shown, clicks those that people made."""

    pages: int = 0
    impressions: int = 0
    clicks: int = 0
    clicks_beyond_window: int = 0
    duplicated_clicks: int = 0
    unknown_clicks: int = 0
    malformed: int = 0
    lines: int = 0
    bytes: int = 0


@contextmanager
def open_log(path: Path) -> Iterator[BinaryIO]:
    """Open a log for writing; it appears under its name when it is complete.

    .jsonl is written plain, .jsonl.gz with gzip (without time and name in it, so that the same events give
    the same bytes). Raises UsageError for another ending, PrectrError when the file cannot be written.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise UsageError(f"cannot write {path}: a log's name ends in .jsonl or .jsonl.gz")
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as packed:
                    yield cast("BinaryIO", packed)
            else:
                yield raw
        os.replace(aside, path)
    except OSError as error:
        raise PrectrError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another --out"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


class LogWriter:
    """Turns blocks into lines and puts out each line once nothing that arrives before it can follow.

    `add` the blocks in order, then `finish`. Draws from random streams of its own, one a block.
    """

    def __init__(self, world: World, out: BinaryIO) -> None:
        self.counts = LogCounts()
        self._seed = world.settings.seed
        self._out = out
        self._pages = PageLines(world.catalogue, self._seed)
        self._held: list[bytes] = []
        self._arrivals = np.zeros(0, dtype=np.int64)
        self._last = START_MS

    @property
    def seconds(self) -> float:
        """Event time from the start of the log to its last page, in seconds."""
        return (self._last - START_MS) / 1000

    def add(self, block: Block, number: int) -> None:
        """Take the next block, the one of this number, and write what arrives before its last page's time."""
        rng = np.random.default_rng([self._seed, 6, number])
        lines, times = self._events(block, rng)
        broken = rng.integers(0, len(lines), rng.binomial(len(lines), MALFORMED))
        times = np.concatenate([times, times[broken]])
        lines += [malform(lines[i], rng) for i in broken.tolist()]
        arrivals = times + rng.integers(0, MAX_DELAY_MS + 1, len(times))
        self._held += lines
        self._arrivals = np.concatenate([self._arrivals, arrivals])
        self.counts.malformed += len(broken)
        self._last = int(block.ts[-1])
        self._write(self._last)

    def finish(self) -> None:
        """Write everything that is still held."""
        self._write(None)

    def _write(self, before: int | None) -> None:
        order = np.argsort(self._arrivals, kind="stable")
        if before is not None:
            order = order[: int(np.searchsorted(self._arrivals[order], before))]
        lines = [self._held[i] for i in order.tolist()]
        if lines:
            data = b"\n".join(lines) + b"\n"
            self._out.write(data)
            self.counts.bytes += len(data)
            self.counts.lines += len(lines)
        kept = np.ones(len(self._held), dtype=np.bool_)
        kept[order] = False
        self._arrivals = self._arrivals[kept]
        self._held = [self._held[i] for i in np.flatnonzero(kept).tolist()]

    def _events(self, block: Block, rng: np.random.Generator) -> tuple[list[bytes], NDArray[np.int64]]:
        """Every good event of the block, with its time, int64."""
        rows, slots = np.nonzero(block.clicked)
        clicks = len(rows)
        times = block.click_ts[rows, slots]
        click_lines = self._pages.clicks(block, rows, slots)
        again = np.flatnonzero(rng.random(clicks) < DUPLICATED)
        stray = rng.integers(0, max(clicks, 1), rng.binomial(clicks, UNKNOWN))
        stray_lines = self._pages.clicks(block, rows[stray], slots[stray], unknown=True)
        counts = self.counts
        counts.pages += len(block.ts)
        counts.impressions += int(block.present.sum())
        counts.clicks += clicks
        counts.clicks_beyond_window += int((times > block.ts[rows] + ATTRIBUTION_MS).sum())
        counts.duplicated_clicks += len(again)
        counts.unknown_clicks += len(stray)
        lines = [*self._pages.impressions(block), *click_lines, *(click_lines[i] for i in again.tolist()), *stray_lines]
        return lines, np.concatenate([block.ts, times, times[again], times[stray]])


class PageLines:
    """Encodes pages and clicks as JSON; what does not change between pages is encoded once."""

    def __init__(self, catalogue: Catalogue, seed: int) -> None:
        encode = msgspec.json.encode
        self._seed = seed
        self._queries = [encode(query) for query in catalogue.queries]
        self._item_ids = [encode(item) for item in catalogue.item_ids]
        self._items = [
            encode({"item_id": i, "title": t, "price": p, "category": c, "brand": b})[:-1] + b',"relevance":'
            for i, t, p, c, b in zip(
                catalogue.item_ids,
                catalogue.titles,
                catalogue.prices.tolist(),
                catalogue.categories,
                catalogue.brands,
                strict=True,
            )
        ]
        self._ends = [[b'%d,"position":%d}' % (level, place) for place in range(1, 201)] for level in range(5)]

    def impressions(self, block: Block) -> list[bytes]:
        """One line a page, without line end."""
        lines = []
        rows = zip(
            block.ts.tolist(),
            block.user.tolist(),
            block.query.tolist(),
            block.item.tolist(),
            block.level.tolist(),
            strict=True,
        )
        items, ends, queries = self._items, self._ends, self._queries
        for number, (ts, user, query, page, levels) in enumerate(rows, start=block.first):
            shown = b",".join(
                [
                    items[i] + ends[level][place]
                    for place, (i, level) in enumerate(zip(page, levels, strict=True))
                    if level
                ]
            )
            lines.append(
                b'{"type":"impression","request_id":"%b","user_id":"%b","query":%b,"ts":%d,"items":[%b]}'
                % (request_id(self._seed, number), user_id(user), queries[query], ts, shown)
            )
        return lines

    def clicks(
        self, block: Block, rows: NDArray[np.int64], slots: NDArray[np.int64], *, unknown: bool = False
    ) -> list[bytes]:
        """One line a click, given as row and slot of the block, int64 (n,); `unknown`: of a page that never was."""
        prefix = b"lost-" if unknown else b""
        values = zip(
            (block.first + rows).tolist(),
            block.user[rows].tolist(),
            block.item[rows, slots].tolist(),
            block.click_ts[rows, slots].tolist(),
            strict=True,
        )
        return [
            b'{"type":"click","request_id":"%b%b","user_id":"%b","item_id":%b,"ts":%d}'
            % (prefix, request_id(self._seed, page), user_id(user), self._item_ids[item], ts)
            for page, user, item, ts in values
        ]


def request_id(seed: int, page: int) -> bytes:
    """The id of a page, by its number from 0."""
    return b"s%dp%d" % (seed, page)


def user_id(user: int) -> bytes:
    """The id of a user, by number from 0."""
    return b"u%d" % user
