"""Which records the monitor takes: what the decoder cannot know, and the counts and the log of those it refuses."""

import logging
from collections import Counter
from typing import Final

from prectr.model.quality.record import InvalidQualityRecord, QualityRecord
from prectr.model.quality.windows import WINDOW_MS
from prectr.ops.report.numbers import moment

MAX_LEAD_MS: Final = 24 * 3_600_000
"""How far event time, and the clock of a trainer, may be ahead of the broker's clock: more than any time zone."""
_log = logging.getLogger(__name__)


def check_times(record: QualityRecord, received_at: int, now: int) -> None:
    """Check that a record is of a time that has come; one of a later time would end the windows of its model.

    Args:
        received_at: timestamp of the record by the broker, ms since the epoch.
        now: by the clock of this machine, ms since the epoch.

    Raises:
        InvalidQualityRecord: its window, its checkpoint or its timestamp lies ahead.
    """
    check_time("its Kafka timestamp", received_at, "this machine's clock", now)
    check_time("its window", record.window.sequence * WINDOW_MS, "its Kafka timestamp", received_at)
    check_time("its checkpoint", record.checkpoint, "its Kafka timestamp", received_at)


def check_time(name: str, time: int, clock: str, reference: int) -> None:
    """Raise InvalidQualityRecord if `time`, called `name`, is too far ahead of `reference` (ms), read from `clock`."""
    if time > reference + MAX_LEAD_MS:
        raise InvalidQualityRecord(
            "time",
            f"{name} is {moment(time)} UTC, more than 24 h ahead of {clock}, {moment(max(0, reference))} UTC",
        )


class Rejections:
    """Counts refused records by reason since the process started, and logs the first of each reason.

    counts: by reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, source_name: str, error: InvalidQualityRecord) -> None:
        """Count a record. source_name: where it was read (topic, partition, offset)."""
        self.counts[error.reason] += 1
        if self.counts[error.reason] == 1:
            _log.warning(
                "%s: rejected: %s (reason %s; further records rejected for it are counted, not logged)",
                source_name,
                error,
                error.reason,
            )
