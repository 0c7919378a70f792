"""Marks in the run folder that training stopped at a loss that is not finite, so that the metrics can show it.

The process exits within a second, and a restarted one stops at the same batch, so Prometheus would rarely scrape it.
Therefore the exporter lingers before the exit, and restarted processes export the failure until a newer checkpoint.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from prectr.ops.json_file import to_json
from prectr.state.errors import TrainingError
from prectr.state.private_files import write_private_file
from prectr.stream.replay.run_checkpoint import list_checkpoints

FAILURE_FILE: Final = "training-failed.json"
"""File in the run folder; its field `error` names the loss and the pages."""
LINGER_SECONDS: Final = 15.0
"""Seconds to keep serving metrics before the exit: more than the usual scrape interval."""
_POLL_INTERVAL: Final = 0.1


def write_failure(run_dir: Path, error: TrainingError) -> None:
    """Write the marker with the error."""
    write_private_file(run_dir / FAILURE_FILE, to_json({"error": str(error)}))


def failed_since(run_dir: Path, checkpoint_time: float | None) -> bool:
    """Whether there is a marker that is newer than the newest checkpoint.

    Args:
        run_dir: folder of the trainer.
        checkpoint_time: of the newest checkpoint, seconds since the epoch; None before the first.
    """
    try:
        failed_at = (run_dir / FAILURE_FILE).stat().st_mtime
    except FileNotFoundError:
        return False
    return checkpoint_time is None or failed_at >= checkpoint_time


def read_failure(run_dir: Path) -> str | None:
    """The error at which training stopped; None if it did not, or there is a newer checkpoint."""
    newest = list_checkpoints(run_dir / "checkpoints")[:1]
    try:
        if not failed_since(run_dir, newest[0].stat().st_mtime if newest else None):
            return None
        marker = msgspec.json.decode((run_dir / FAILURE_FILE).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        # Written, or pruned, at this moment.
        return None
    return marker.get("error")


def linger_for_scrape(
    stop: Callable[[], bool], clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Return after `LINGER_SECONDS`, or once a stop is requested."""
    deadline = clock() + LINGER_SECONDS
    while not stop() and clock() < deadline:
        sleep(_POLL_INTERVAL)
