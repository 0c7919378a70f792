"""Writes a simulated log file and its ground truth."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from prectr.stream.simulator.ground_truth import GroundTruthWriter, create_ground_truth
from prectr.stream.simulator.log_writer import LogCounts, LogWriter, create_log
from prectr.stream.simulator.world import WorldSettings, draw_pages, make_world

Progress = Callable[[int, int], None]
"""Called with the number of pages written and the total."""


class SimulatedLog(LogCounts):
    """What was written: counts, the event time that the log spans, and the settings of its world."""

    seconds_of_log: float = 0.0
    world: WorldSettings | None = None


def simulate(
    path: str | Path,
    settings: WorldSettings,
    *,
    truth: str | Path | None = None,
    progress: Progress | None = None,
) -> SimulatedLog:
    """Write the log of a simulated world, events in the order of their arrival.

    The same settings give the same bytes, with or without `truth`.

    Args:
        path: ends in .jsonl or .jsonl.gz.
        truth: Parquet file for the true click probabilities, with the columns of `ground_truth.SCHEMA`.

    Raises:
        UsageError: `path` has another ending.
        PrectrError: a file cannot be written.
    """
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
                progress(block.first_page + len(block.ts), settings.pages)
        writer.finish()
    counts = writer.counts
    return SimulatedLog(
        **{name: getattr(counts, name) for name in counts.__struct_fields__},
        seconds_of_log=writer.seconds,
        world=settings,
    )
