"""Makes a simulated log file, and its truth."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from prectr.stream.simulator.ground_truth import GroundTruthWriter, create_ground_truth
from prectr.stream.simulator.log_writer import LogCounts, LogWriter, create_log
from prectr.stream.simulator.world import CatalogueName, WorldSettings, draw_pages, make_world

Progress = Callable[[int, int], None]
"""Called with pages done and pages in all."""


class SimulatedLog(LogCounts):
    """What was written: counts, the event time that it spans, and the world that it is of."""

    seconds_of_log: float = 0.0
    world: WorldSettings | None = None


def simulate(
    path: str | Path,
    *,
    pages: int,
    seed: int = 0,
    catalogue: CatalogueName = "synthetic",
    truth: str | Path | None = None,
    days: float = 14.0,
    drift: bool = False,
    queries: int | None = None,
    items: int | None = None,
    users: int | None = None,
    progress: Progress | None = None,
) -> SimulatedLog:
    """Write the log of a simulated world to `path` (.jsonl or .jsonl.gz), events in arrival order.

    The same arguments give the same bytes, with or without `truth`, a Parquet file of `truth.SCHEMA`.
    `pages` result pages over `days` days; `users` by default pages / 2.4; `queries` and `items` (2,000 and
    20,000) only for the synthetic catalogue. Raises UsageError for arguments that make no world,
    PrectrError when a file cannot be written.
    """
    settings = WorldSettings(
        pages=pages,
        seed=seed,
        catalogue=catalogue,
        days=days,
        drift=drift,
        queries=queries,
        items=items,
        users=users,
    )
    with ExitStack() as files:
        out = files.enter_context(create_log(Path(path)))
        table = files.enter_context(create_ground_truth(Path(truth), settings)) if truth is not None else None
        world = make_world(settings)
        writer = LogWriter(world, out)
        truth_writer = GroundTruthWriter(world, table) if table is not None else None
        for number, block in enumerate(draw_pages(world)):
            writer.add(block, number)
            if truth_writer is not None:
                truth_writer.add(block, number)
            if progress is not None:
                progress(block.first_page + len(block.ts), pages)
        writer.finish()
    counts = writer.counts
    return SimulatedLog(
        **{name: getattr(counts, name) for name in counts.__struct_fields__},
        seconds_of_log=writer.seconds,
        world=settings,
    )
