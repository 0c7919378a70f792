"""Learning curves: quality on the second half of logs of increasing length, from the same catalogue."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from bench.quality.rows import Row
from bench.quality.variants import Variant
from bench.world.run_world import RunContext, measure_world
from prectr.stream.simulator import WorldSettings

LOG_PAGES: Final = (10_000, 20_000, 50_000, 100_000, 200_000)
"""Lengths of the logs, in pages."""

MODELS: Final = ("wide-deep+", "prectr", "prectr-v2")


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a log of `pages` pages."""

    pages: int
    row: Row


def measure_curve(
    world: WorldSettings, log_pages: Sequence[int], models: Sequence[Variant], context: RunContext
) -> Iterator[list[CurvePoint]]:
    """Yield the rows of each log, with baselines and reference learner.

    Catalogue and event time are those of `world`: more pages mean more users and denser traffic, as in a larger shop
    with the same catalogue.
    """
    for pages in log_pages:
        found = measure_world(msgspec.structs.replace(world, pages=pages), models, context)
        yield [CurvePoint(pages=pages, row=row) for row in found.rows]
