"""What a log gives away without a model: position alone, popularity, and the logged order, prequentially."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from prectr.model.features.hashing import U64, HashCache, cross, row_indices
from prectr.model.features.smoothing import log_odds
from prectr.model.quality.click_rates import ClickRates
from prectr.model.quality.counterfactual.propensities import PositionPairs, PositionPairsState
from prectr.model.quality.quality import Quality, QualityState
from prectr.model.quality.resamples import Resamples, ResamplesState
from prectr.model.quality.scored_pages import ScoredPages
from prectr.model.quality.sketch import Floats
from prectr.stream.records import Example

POSITION: Final = "position alone"
POPULARITY: Final = "popularity"
LOGGED_ORDER: Final = "logged order"
BASELINES: Final = (POSITION, POPULARITY, LOGGED_ORDER)
_POSITIONS: Final = 256
"""Positions beyond count as the last one."""
_ITEMS: Final = 1 << 18
"""Rows that items are hashed to."""
_COUNTED_PAGES: Final = 512
"""Pages counted at once, which changes no result."""
_FIRST_SCORE: Final = 4.0
_SCORE_STEP: Final = 0.125
"""The logged order's scores are as far apart as the bins of an AUC, and begin where these end."""


class _Item(msgspec.Struct, gc=False):
    item_id: str
    position: int


class _Page(msgspec.Struct, gc=False):
    """The part of a result page that the baselines read."""

    items: list[_Item]


class _Table(msgspec.Struct, frozen=True, array_like=True):
    """The rows of a `ClickRates` that are not empty."""

    rows: bytes
    impressions: bytes
    clicks: bytes


class _State(msgspec.Struct, frozen=True, array_like=True):
    tables: tuple[_Table, _Table]
    qualities: tuple[QualityState, ...]
    resamples: tuple[ResamplesState, ...]
    position_pairs: PositionPairsState


_decode_page = msgspec.msgpack.Decoder(_Page).decode


class Baselines:
    """An `ExampleSink` that scores every page without a model, before it counts the page.

    quality, resamples: by name of the baseline. The scores of the logged order are no probabilities. position_pairs:
    what the log says about the worth of positions.
    """

    def __init__(self) -> None:
        self.quality = {name: Quality() for name in BASELINES}
        self.resamples = {name: Resamples() for name in BASELINES}
        self.position_pairs = PositionPairs()
        self._by_position = ClickRates(_POSITIONS)
        self._by_item = ClickRates(_ITEMS)
        self._hash = HashCache()
        self._open: list[Example] = []

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Score and count the next pages; the last ones may wait for `flush`."""
        self._open += examples
        while len(self._open) >= _COUNTED_PAGES:
            batch, self._open = self._open[:_COUNTED_PAGES], self._open[_COUNTED_PAGES:]
            self._count(batch)

    def flush(self) -> None:
        """Count the pages that wait."""
        batch, self._open = self._open, []
        if batch:
            self._count(batch)

    def save(self, folder: Path) -> None:
        """Write the whole state."""
        self.flush()
        state = _State(
            (_table(self._by_position), _table(self._by_item)),
            tuple(quality.state() for quality in self.quality.values()),
            tuple(resamples.state() for resamples in self.resamples.values()),
            self.position_pairs.state(),
        )
        (folder / "baselines.msgpack").write_bytes(msgspec.msgpack.encode(state))

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""
        state = msgspec.msgpack.decode((folder / "baselines.msgpack").read_bytes(), type=_State)
        for rates, table in zip((self._by_position, self._by_item), state.tables, strict=True):
            rows = np.frombuffer(table.rows, "<u4")
            rates.impressions[rows] = np.frombuffer(table.impressions, "<i8")
            rates.clicks[rows] = np.frombuffer(table.clicks, "<i8")
        self.quality = dict(zip(BASELINES, map(Quality.from_state, state.qualities), strict=True))
        self.resamples = dict(zip(BASELINES, map(Resamples.from_state, state.resamples), strict=True))
        self.position_pairs = PositionPairs(state.position_pairs)

    def _count(self, examples: Sequence[Example]) -> None:
        pages, items = self._arrays(examples)
        starts = pages.page_starts
        page_of = np.arange(len(examples)).repeat(pages.page_sizes)
        self.position_pairs.add(cross(pages.query_keys[page_of], items), pages.positions, pages.labels)
        position_rows = np.minimum(pages.positions, _POSITIONS) - 1
        scores: dict[str, Floats] = {
            POSITION: log_odds(self._by_position.advance(position_rows, pages.labels, starts)),
            POPULARITY: log_odds(self._by_item.advance(row_indices(items, "item", _ITEMS), pages.labels, starts)),
            LOGGED_ORDER: _FIRST_SCORE - _SCORE_STEP * pages.positions.astype(np.float64),
        }
        for name, logits in scores.items():
            scored = replace(pages, logits=logits)
            self.resamples[name].add(scored, self.quality[name].add_pages(scored))

    def _arrays(self, examples: Sequence[Example]) -> tuple[ScoredPages, U64]:
        """The pages without scores, and the hash uint64[n] of each item."""
        decoded = [_decode_page(example.page).items for example in examples]
        hashed = self._hash
        items = np.array([hashed(item.item_id) for page in decoded for item in page], np.uint64)
        labels = np.frombuffer(b"".join([example.labels for example in examples]), np.uint8)
        return ScoredPages(
            logits=np.zeros(len(labels)),
            labels=labels,
            levels=np.frombuffer(b"".join([example.levels for example in examples]), np.uint8),
            positions=np.array([item.position for page in decoded for item in page], np.int64),
            category=np.zeros(len(labels), np.uint64),
            page_sizes=np.array([len(page) for page in decoded], np.int64),
            user_activity=np.array([example.user_activity for example in examples], np.int64),
            closes_at=np.array([example.closes_at for example in examples], np.int64),
            page_keys=np.array([hashed(example.request_id) for example in examples], np.uint64),
            user_keys=np.array([hashed(example.user_id) for example in examples], np.uint64),
            query_keys=np.array([hashed(example.query) for example in examples], np.uint64),
        ), items


def _table(rates: ClickRates) -> _Table:
    rows = np.flatnonzero(rates.impressions)
    return _Table(
        rows.astype("<u4").tobytes(),
        rates.impressions[rows].astype("<i8").tobytes(),
        rates.clicks[rows].astype("<i8").tobytes(),
    )
