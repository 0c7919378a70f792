"""Which events come too late to be joined, if they are sent again now."""

import logging
from collections.abc import Callable
from typing import Final

from prectr.state.errors import StateError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, partition_count
from prectr.stream.kafka.recovery.committed_output import read_join_output

_log: Final = logging.getLogger(__name__)


def read_late_before(connection: Connection, topics: Topics, attribution_window: int) -> Callable[[int, int], bool]:
    """Return whether an event, by partition and time (ms), is of before the pages that the partition still holds open.

    If how far the tasks have come cannot be read, no event is, and a warning says so.

    Args:
        attribution_window: of the running system, in ms.
    """
    try:
        outputs = read_join_output(connection, topics, partition_count(connection, topics.events), lambda _: None)
    except StateError as error:
        _log.warning("which of the events are late is not known: %s", error.message)
        return lambda _partition, _ts: False
    watermarks = [output.watermark for output in outputs]
    return lambda partition, ts: ts + attribution_window <= watermarks[partition]
