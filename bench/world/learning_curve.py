"""How quality grows with the log: the same world's shop, logs of growing length, the second half of each scored."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from bench.quality.rows import Row
from bench.quality.variants import Contender
from bench.world.run_world import Means, measure_world
from prectr.stream.simulator import WorldSettings

SIZES: Final = (10_000, 20_000, 50_000, 100_000, 200_000)
"""Pages of the logs."""

MODELS: Final = ("wide-deep+", "prectr", "prectr-v2")


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a log of so many pages."""

    pages: int
    row: Row


def curve(
    world: WorldSettings, sizes: Sequence[int], models: Sequence[Contender], means: Means
) -> Iterator[list[CurvePoint]]:
    """The rows of each log, floors and reference learner among them; the shop and its days stay as `world` has them.

    More pages in the same days are more users and denser traffic, as of a larger shop with the same catalogue.
    """
    for pages in sizes:
        found = measure_world(msgspec.structs.replace(world, pages=pages), models, means)
        yield [CurvePoint(pages=pages, row=row) for row in found.rows]
