"""Every metric that a process exports, by section of docs/metrics.md.

Labels never carry a user, a query or an item.
"""

from typing import Final

from prectr.ops.metrics.catalogue import (
    ingest,
    model_quality,
    monitor,
    progress_and_lag,
    record_outcomes,
    state_and_snapshots,
    training,
)

SECTIONS: Final = (
    ingest.SECTION,
    record_outcomes.SECTION,
    progress_and_lag.SECTION,
    state_and_snapshots.SECTION,
    training.SECTION,
    model_quality.SECTION,
    monitor.SECTION,
)
"""In the order of docs/metrics.md."""
