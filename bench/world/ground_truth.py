"""A simulated log with its ground truth as arrays: impressions, and candidates that were not shown."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.provenance import code_sha256
from prectr.stream.simulator import World, WorldSettings, make_world, simulate
from prectr.stream.simulator.log_writer import request_id

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LOG_FILE: Final = "log.jsonl.gz"
TRUTH_FILE: Final = "truth.parquet"
WORLD_FILE: Final = "world.json"
_CODE: Final = ("stream/simulator",)


@dataclass(frozen=True)
class Impressions:
    """n impressions, real or counterfactual, in the order of their pages.

    page: int64 (n,), page number. item: int64 (n,), index in the catalogue. level: uint8 (n,). position: int64 (n,).
    probability: float64 (n,), true click probability at that position. shown_before: int64 (n,), number of earlier
    pages that showed the item for the query. clicked: bool (n,), clicked within the attribution window, the label in
    training.
    """

    page: Ints
    item: Ints
    level: NDArray[np.uint8]
    position: Ints
    probability: Floats
    shown_before: Ints
    clicked: NDArray[np.bool_]

    @cached_property
    def pages(self) -> Ints:
        """The R distinct pages, int64 (R,), ascending."""
        return np.unique(self.page)

    @cached_property
    def row(self) -> Ints:
        """Index of each impression's page in `pages`, int64 (n,)."""
        return np.searchsorted(self.pages, self.page)

    @cached_property
    def first(self) -> Ints:
        """Index of the first impression of each page, int64 (R + 1,)."""
        return np.searchsorted(self.page, np.append(self.pages, np.iinfo(np.int64).max))

    @cached_property
    def column(self) -> Ints:
        """Index of each impression on its page, int64 (n,)."""
        return np.arange(len(self.page)) - self.first[self.row]

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Mask of the impressions in the layout of `table`, bool (R, W)."""
        return self.table(np.ones(len(self.page), dtype=np.bool_))

    def table(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (n,) as a table (R, W), one row per page, zero-padded to the longest page."""
        table = np.zeros((len(self.pages), int(self.column.max(initial=-1)) + 1), dtype=values.dtype)
        table[self.row, self.column] = values
        return table

    def of_page(self, page: int) -> slice:
        """Slice of the impressions of one page; empty if it has none."""
        start, end = np.searchsorted(self.page, [page, page + 1])
        return slice(int(start), int(end))


@dataclass(frozen=True)
class GroundTruth:
    """A log of P pages with its ground truth.

    user, query: int64 (P,), indices of the world's users and queries. activity: int64 (P,), number of the user's
    joined clicks before the page. shown: the log's impressions; unexposed, candidates: counterfactual ones at position
    1.
    """

    world: World
    log: Path
    user: Ints
    query: Ints
    activity: Ints
    shown: Impressions
    unexposed: Impressions
    candidates: Impressions

    @property
    def pages(self) -> int:
        """Number of pages."""
        return len(self.user)

    @property
    def half(self) -> int:
        """First page of the second half."""
        return self.pages // 2

    @cached_property
    def page_of_request(self) -> dict[str, int]:
        """Page number by request_id."""
        seed = self.world.settings.seed
        return {request_id(seed, page).decode(): page for page in range(self.pages)}


def make_log(settings: WorldSettings, folder: Path) -> None:
    """Simulate log and ground truth into `folder`, unless it has them already."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = msgspec.json.encode({"world": settings, "code": code_sha256(*_CODE)})
    made = folder / WORLD_FILE
    if made.is_file() and made.read_bytes() == identity:
        return
    made.unlink(missing_ok=True)
    simulate(folder / LOG_FILE, settings, truth=folder / TRUTH_FILE)
    made.write_bytes(identity)


def read_truth(settings: WorldSettings, folder: Path) -> GroundTruth:
    """Read the log and ground truth that `make_log` wrote to `folder`."""
    world = make_world(settings)
    table = pq.read_table(folder / TRUTH_FILE, columns=_COLUMNS)
    slices = {name: table.filter(pc.equal(table["slice"], name)) for name in ("exposed", "unexposed", "candidates")}
    exposed = slices["exposed"]
    _, first = np.unique(_int64(exposed["page"]), return_index=True)
    pages = exposed.take(pa.array(first))
    items = pa.array(world.catalogue.item_ids)
    return GroundTruth(
        world=world,
        log=folder / LOG_FILE,
        user=_int64(pc.cast(pc.utf8_slice_codeunits(pages["user_id"], 1), pa.int64())),
        query=_int64(pc.index_in(pages["query"], pa.array(world.catalogue.queries))),
        activity=_int64(pages["user_clicks"]),
        shown=_read_impressions(exposed, items),
        unexposed=_read_impressions(slices["unexposed"], items),
        candidates=_read_impressions(slices["candidates"], items),
    )


_COLUMNS: Final = [
    "slice",
    "page",
    "user_id",
    "query",
    "item_id",
    "position",
    "level",
    "probability",
    "user_clicks",
    "shown_before",
    "joined",
]


def _read_impressions(table: pa.Table, items: pa.Array) -> Impressions:
    return Impressions(
        page=_int64(table["page"]),
        item=_int64(pc.index_in(table["item_id"], items)),
        level=table["level"].to_numpy().astype(np.uint8),
        position=_int64(table["position"]),
        probability=table["probability"].to_numpy(),
        shown_before=_int64(table["shown_before"]),
        clicked=table["joined"].to_numpy(),
    )


def _int64(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.to_numpy().astype(np.int64))
