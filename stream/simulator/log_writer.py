"""Writes the events of a simulated world as JSON lines, in the order of their arrival."""

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
from prectr.stream.simulator.corruption import (
    DUPLICATE_CLICK_SHARE,
    MALFORMED_SHARE,
    MAX_DELAY_MS,
    UNKNOWN_PAGE_CLICK_SHARE,
    corrupt_line,
)
from prectr.stream.simulator.world import ATTRIBUTION_MS, START_MS, PageBlock, World

_GZIP_LEVEL: Final = 4


class LogCounts(msgspec.Struct):
    """Counts of a log; `clicks` are those that users made, without duplicates and unknown pages."""

    pages: int = 0
    impressions: int = 0
    clicks: int = 0
    clicks_beyond_window: int = 0
    duplicated_clicks: int = 0
    unknown_page_clicks: int = 0
    malformed_events: int = 0
    lines: int = 0
    bytes: int = 0


@contextmanager
def create_log(path: Path) -> Iterator[BinaryIO]:
    """Open a log for writing; it appears under its name once it is complete.

    .jsonl is written plain, .jsonl.gz with gzip (without time and name, so that the same events give the same bytes).

    Raises:
        UsageError: `path` has another ending.
        PrectrError: the file cannot be written.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise UsageError(f"cannot write {path}: a log's name ends in .jsonl or .jsonl.gz")
    staging = path.with_name(path.name + ".part")
    try:
        with staging.open("wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as compressed:
                    yield cast("BinaryIO", compressed)
            else:
                yield raw
        os.replace(staging, path)
    except OSError as error:
        raise PrectrError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another path"
        ) from error
    finally:
        staging.unlink(missing_ok=True)


class LogWriter:
    """Turns blocks into lines and writes each line once no earlier arrival can follow.

    `add` the blocks in order, then `finish`. Each block has a random stream of its own.
    """

    def __init__(self, world: World, out: BinaryIO) -> None:
        self.counts = LogCounts()
        self._seed = world.settings.seed
        self._out = out
        self._encoder = EventEncoder(world.catalogue, self._seed)
        self._buffered: list[bytes] = []
        self._arrivals = np.zeros(0, dtype=np.int64)
        self._last_ts = START_MS

    @property
    def seconds(self) -> float:
        """Event time from the start of the log to its last page, in seconds."""
        return (self._last_ts - START_MS) / 1000

    def add(self, block: PageBlock, number: int) -> None:
        """Add the next block, with its number, and write the events that arrive before the time of its last page."""
        rng = np.random.default_rng([self._seed, 6, number])
        lines, times = self._events(block, rng)
        malformed = rng.integers(0, len(lines), rng.binomial(len(lines), MALFORMED_SHARE))
        times = np.concatenate([times, times[malformed]])
        lines += [corrupt_line(lines[i], rng) for i in malformed.tolist()]
        arrivals = times + rng.integers(0, MAX_DELAY_MS + 1, len(times))
        self._buffered += lines
        self._arrivals = np.concatenate([self._arrivals, arrivals])
        self.counts.malformed_events += len(malformed)
        self._last_ts = int(block.ts[-1])
        self._write(self._last_ts)

    def finish(self) -> None:
        """Write everything that is still buffered."""
        self._write(None)

    def _write(self, until: int | None) -> None:
        order = np.argsort(self._arrivals, kind="stable")
        if until is not None:
            order = order[: int(np.searchsorted(self._arrivals[order], until))]
        lines = [self._buffered[i] for i in order.tolist()]
        if lines:
            data = b"\n".join(lines) + b"\n"
            self._out.write(data)
            self.counts.bytes += len(data)
            self.counts.lines += len(lines)
        kept = np.ones(len(self._buffered), dtype=np.bool_)
        kept[order] = False
        self._arrivals = self._arrivals[kept]
        self._buffered = [self._buffered[i] for i in np.flatnonzero(kept).tolist()]

    def _events(self, block: PageBlock, rng: np.random.Generator) -> tuple[list[bytes], NDArray[np.int64]]:
        """Return all valid events of the block and their times, int64."""
        rows, slots = np.nonzero(block.clicked)
        clicks = len(rows)
        times = block.click_ts[rows, slots]
        click_lines = self._encoder.click_lines(block, rows, slots)
        duplicates = np.flatnonzero(rng.random(clicks) < DUPLICATE_CLICK_SHARE)
        unknown_page = rng.integers(0, max(clicks, 1), rng.binomial(clicks, UNKNOWN_PAGE_CLICK_SHARE))
        unknown_page_lines = self._encoder.click_lines(
            block, rows[unknown_page], slots[unknown_page], unknown_page=True
        )
        counts = self.counts
        counts.pages += len(block.ts)
        counts.impressions += int(block.present.sum())
        counts.clicks += clicks
        counts.clicks_beyond_window += int((times > block.ts[rows] + ATTRIBUTION_MS).sum())
        counts.duplicated_clicks += len(duplicates)
        counts.unknown_page_clicks += len(unknown_page)
        lines = [
            *self._encoder.page_lines(block),
            *click_lines,
            *(click_lines[i] for i in duplicates.tolist()),
            *unknown_page_lines,
        ]
        return lines, np.concatenate([block.ts, times, times[duplicates], times[unknown_page]])


class EventEncoder:
    """Encodes pages and clicks as JSON; the parts that do not vary between pages are encoded once."""

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
        self._item_ends = [
            [b'%d,"position":%d}' % (level, position) for position in range(1, 201)] for level in range(5)
        ]

    def page_lines(self, block: PageBlock) -> list[bytes]:
        """Return one line per page, without line end."""
        lines = []
        rows = zip(
            block.ts.tolist(),
            block.user.tolist(),
            block.query.tolist(),
            block.item.tolist(),
            block.level.tolist(),
            strict=True,
        )
        items, item_ends, queries = self._items, self._item_ends, self._queries
        for number, (ts, user, query, page, levels) in enumerate(rows, start=block.first_page):
            item_fields = b",".join(
                [
                    items[i] + item_ends[level][index]
                    for index, (i, level) in enumerate(zip(page, levels, strict=True))
                    if level
                ]
            )
            lines.append(
                b'{"type":"impression","request_id":"%b","user_id":"%b","query":%b,"ts":%d,"items":[%b]}'
                % (request_id(self._seed, number), user_id(user), queries[query], ts, item_fields)
            )
        return lines

    def click_lines(
        self, block: PageBlock, rows: NDArray[np.int64], slots: NDArray[np.int64], *, unknown_page: bool = False
    ) -> list[bytes]:
        """Return one line per click, given as row and slot of the block, int64 [n]; `unknown_page`: not in the log."""
        prefix = b"lost-" if unknown_page else b""
        values = zip(
            (block.first_page + rows).tolist(),
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
    """Return the id of a page by its number from 0."""
    return b"s%dp%d" % (seed, page)


def user_id(user: int) -> bytes:
    """Return the id of a user by its number from 0."""
    return b"u%d" % user
