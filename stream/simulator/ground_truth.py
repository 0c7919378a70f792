"""Writes the ground truth, which training never sees: the true probability of every click, exposed or not."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prectr.state.errors import PrectrError
from prectr.stream.simulator.clicks import KINDS, LOGIT_COMPONENTS
from prectr.stream.simulator.log_writer import request_id, user_id
from prectr.stream.simulator.world import (
    PageBlock,
    World,
    WorldSettings,
    in_second_half,
    shown_before,
    true_probabilities,
)

UNEXPOSED_PER_PAGE: Final = 5
ALL_CANDIDATES_EVERY: Final = 16
"""Every 16th page of the second half has all its candidates in the ground truth."""

SCHEMA: Final = pa.schema(
    [
        ("slice", pa.string()),
        ("page", pa.int64()),
        ("request_id", pa.string()),
        ("ts", pa.int64()),
        ("user_id", pa.string()),
        ("query", pa.string()),
        ("query_kind", pa.string()),
        ("item_id", pa.string()),
        ("position", pa.int32()),
        ("level", pa.int8()),
        ("probability", pa.float64()),
        *((name, pa.float64()) for name in LOGIT_COMPONENTS),
        ("user_clicks", pa.int64()),
        ("shown_before", pa.int64()),
        ("clicked", pa.bool_()),
        ("joined", pa.bool_()),
        ("second_half", pa.bool_()),
    ]
)
"""One row per impression, real or hypothetical. Columns:

slice: `exposed`: every impression of the log, in its order; `unexposed`: for each page of the second half, 5
candidates of its query drawn uniformly from those not shown, at position 1; `candidates`: every 16th page of the second
half with all its candidates, at position 1.
page: number in time order, from 0.
probability: of a click at that position.
z_*: the terms of z, whose sum is z + 1.9.
user_clicks: the user's joined clicks before the page.
shown_before: earlier pages that showed the item for the query.
clicked, joined: whether it was clicked, and clicked within 120 s; both false for hypothetical impressions.
second_half: page ≥ pages // 2.

The file's metadata has the world's settings under `prectr.world`.
"""


@contextmanager
def create_ground_truth(path: Path, settings: WorldSettings) -> Iterator[pq.ParquetWriter]:
    """Open a ground truth file for writing; it appears under its name once it is complete.

    Raises:
        PrectrError: it cannot be written.
    """
    staging = path.with_name(path.name + ".part")
    schema = SCHEMA.with_metadata({"prectr.world": msgspec.json.encode(settings)})
    try:
        with pq.ParquetWriter(staging, schema, compression="zstd") as writer:
            yield writer
        staging.replace(path)
    except OSError as error:
        raise PrectrError(f"cannot write {path}: {error}; free space or choose another path") from error
    finally:
        staging.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Impressions:
    """N impressions of a block's pages, real or hypothetical.

    Attributes:
        row: int64 [N], index of the page in the block.
        item, position: int64 [N].
        level: uint8 [N].
        components: float64 [N, 4], the terms of z.
        probability: float64 [N].
        shown_before: int64 [N].
        clicked, joined: bool [N].
    """

    row: NDArray[np.int64]
    item: NDArray[np.int64]
    position: NDArray[np.int64]
    level: NDArray[np.uint8]
    components: NDArray[np.float64]
    probability: NDArray[np.float64]
    shown_before: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    joined: NDArray[np.bool_]


class GroundTruthWriter:
    """Writes the ground truth of blocks; it has random streams of its own, so the log does not depend on it."""

    def __init__(self, world: World, writer: pq.ParquetWriter) -> None:
        self._world = world
        self._writer = writer
        catalogue = world.catalogue
        self._queries = pa.array(catalogue.queries, pa.string())
        self._items = pa.array(catalogue.item_ids, pa.string())
        self._kinds = pa.array(KINDS, pa.string())

    def add(self, block: PageBlock, number: int) -> None:
        """Write the rows of the next block, with its number."""
        rng = np.random.default_rng([self._world.settings.seed, 7, number])
        rows, columns = np.nonzero(block.present)
        exposed = _Impressions(
            row=rows,
            item=block.item[rows, columns],
            position=columns + 1,
            level=block.level[rows, columns],
            components=block.logit_components[rows, columns],
            probability=block.probability[rows, columns],
            shown_before=block.shown_before[rows, columns],
            clicked=block.clicked[rows, columns],
            joined=block.joined[rows, columns],
        )
        self._write("exposed", block, exposed)
        pages = block.first_page + np.arange(len(block.ts))
        second_half = in_second_half(self._world.settings, pages)
        self._write_hypothetical(
            "unexposed", block, np.flatnonzero(second_half), draw_unexposed(self._world, block, second_half, rng)
        )
        full_pages = np.flatnonzero(second_half & (pages % ALL_CANDIDATES_EVERY == 0))
        present = self._world.catalogue.candidates[block.query[full_pages]] >= 0
        slots = np.broadcast_to(np.arange(present.shape[1]), present.shape)
        self._write_hypothetical("candidates", block, full_pages, np.where(present, slots, -1))

    def _write_hypothetical(
        self, name: str, block: PageBlock, pages: NDArray[np.int64], slot: NDArray[np.int64]
    ) -> None:
        """Write rows for candidates at position 1. pages: int64 [n], indices in the block; slot: int64 [n, k]."""
        if not len(pages):
            return
        shape = slot.shape
        item, level, components, probability = true_probabilities(
            self._world,
            page=np.broadcast_to(block.first_page + pages[:, None], shape),
            user=np.broadcast_to(block.user[pages][:, None], shape),
            query=np.broadcast_to(block.query[pages][:, None], shape),
            slot=slot,
            position=np.ones(shape, dtype=np.int64),
        )
        times_shown = shown_before(
            block.shown_at_start,
            shown_query=block.query,
            shown_slot=block.slot,
            query=block.query[pages],
            page=pages,
            slot=slot,
        )
        present = slot >= 0
        rows = np.broadcast_to(pages[:, None], shape)[present]
        no_clicks = np.zeros(len(rows), dtype=np.bool_)
        impressions = _Impressions(
            row=rows,
            item=item[present],
            position=np.ones(len(rows), dtype=np.int64),
            level=level[present],
            components=components[present],
            probability=probability[present],
            shown_before=times_shown[present],
            clicked=no_clicks,
            joined=no_clicks,
        )
        self._write(name, block, impressions)

    def _write(self, name: str, block: PageBlock, impressions: _Impressions) -> None:
        """Write impressions as rows of the slice `name`."""
        rows = impressions.row
        seed, settings = self._world.settings.seed, self._world.settings
        numbers = block.first_page + np.arange(len(block.ts))
        requests = pa.array([request_id(seed, page).decode() for page in numbers.tolist()])
        users = pa.array([user_id(user).decode() for user in block.user.tolist()])
        second_half = in_second_half(settings, numbers)
        weights = self._world.click_weights
        kind = np.where(second_half, weights.second_half_kind[block.query], weights.kind[block.query])
        row_index = pa.array(rows)
        table = {
            "slice": pa.repeat(name, len(rows)),
            "page": numbers[rows],
            "request_id": requests.take(row_index),
            "ts": block.ts[rows],
            "user_id": users.take(row_index),
            "query": self._queries.take(pa.array(block.query[rows])),
            "query_kind": self._kinds.take(pa.array(kind[rows])),
            "item_id": self._items.take(pa.array(impressions.item)),
            "position": impressions.position.astype(np.int32),
            "level": impressions.level.astype(np.int8),
            "probability": impressions.probability,
            "user_clicks": block.user_clicks[rows],
            "shown_before": impressions.shown_before,
            "clicked": impressions.clicked,
            "joined": impressions.joined,
            "second_half": second_half[rows],
        }
        table |= {
            component: np.ascontiguousarray(impressions.components[:, k])
            for k, component in enumerate(LOGIT_COMPONENTS)
        }
        self._writer.write_table(pa.table({name: table[name] for name in SCHEMA.names}, schema=self._writer.schema))


def draw_unexposed(
    world: World, block: PageBlock, second_half: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw 5 candidates that each page of the second half did not show, int64 [pages, 5], −1 where there are fewer."""
    query, shown = block.query[second_half], block.slot[second_half]
    unexposed = world.catalogue.candidates[query] >= 0
    rows, columns = np.nonzero(shown >= 0)
    unexposed[rows, shown[rows, columns]] = False
    order = np.where(unexposed, rng.random(unexposed.shape), 2.0)
    count = min(UNEXPOSED_PER_PAGE, unexposed.shape[1])
    best = np.argpartition(order, count - 1, axis=1)[:, :count] if len(order) else np.zeros((0, count), dtype=np.int64)
    return np.where(np.take_along_axis(order, best, axis=1) < 2.0, best, -1).astype(np.int64)
