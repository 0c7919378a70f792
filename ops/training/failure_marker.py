"""A trainer that ends since a loss is not finite leaves word in its run folder, so that whoever watches it is told.

It is gone within a second, and one that is started again ends at the same batch: nobody would see it at work. So its
successor, and the exporter for a moment before the end, say it until a checkpoint is written after it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from prectr.ops.json_file import write_json
from prectr.state.errors import TrainingError

FAILURE_FILE: Final = "training-failed.json"
"""File of the run folder; `error` in it says which loss, and of which pages."""
LINGER_SECONDS: Final = 15.0
"""Seconds for which metrics are served before the end: more than Prometheus usually takes between two looks."""
_POLL_INTERVAL: Final = 0.1


def write_failure(run_dir: Path, error: TrainingError) -> None:
    """Write down why nothing was learned from a batch."""
    write_json(run_dir / FAILURE_FILE, {"error": str(error)})


def failed_since(run_dir: Path, checkpoint_time: float | None) -> bool:
    """Whether a trainer of the folder has ended so, and nothing was saved since.

    checkpoint: when the newest was written, seconds since the epoch; None before the first.
    """
    try:
        failed_at = (run_dir / FAILURE_FILE).stat().st_mtime
    except FileNotFoundError:
        return False
    return checkpoint_time is None or failed_at >= checkpoint_time


def linger_for_scrape(
    stop: Callable[[], bool], clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Return after `SEEN_AFTER` seconds, or once asked to stop."""
    deadline = clock() + LINGER_SECONDS
    while not stop() and clock() < deadline:
        sleep(_POLL_INTERVAL)
