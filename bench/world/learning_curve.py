"""How quality grows with the log: the same world's shop, logs of growing length, the second half of each scored."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from bench.quality.rows import Row
from bench.quality.variants import Variant
from bench.world.run_world import RunContext, measure_world
from prectr.stream.simulator import WorldSettings

LOG_PAGES: Final = (10_000, 20_000, 50_000, 100_000, 200_000)
"""Pages of the logs."""

MODELS: Final = ("wide-deep+", "prectr", "prectr-v2")


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a log of so many pages."""

    pages: int
    row: Row


def measure_curve(
    world: WorldSettings, log_pages: Sequence[int], models: Sequence[Variant], context: RunContext
) -> Iterator[list[CurvePoint]]:
    """The rows of each log, baselines and reference learner among them; the shop and its days stay as `world` has them.

    More pages in the same days are more users and denser traffic, as of a larger shop with the same catalogue.
    """
    for pages in log_pages:
        found = measure_world(msgspec.structs.replace(world, pages=pages), models, context)
        yield [CurvePoint(pages=pages, row=row) for row in found.rows]
