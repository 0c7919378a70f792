"""Clocks: of the broker and of the newest events, compared with this machine."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from prectr.ops.doctor.broker.newest_records import NewestRecords
from prectr.ops.doctor.findings import Finding
from prectr.stream.events.contract import InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.kafka.client.topics import Topics

_LOG_APPEND_TIME: Final = 1
_MAX_CLOCK_DIFFERENCE: Final = 2.0
"""Tolerated difference of two clocks, in seconds."""
_MAX_EVENT_LEAD: Final = 300.0
"""Seconds that an event may be in the future before there is a warning."""


def check_clocks(found: NewestRecords, topics: Topics) -> Iterator[Finding]:
    """Compare the newest records with our clock. Sends nothing, so a slow broker clock looks like old records."""
    now = time.time()
    newest = [records[-1] for records in found.values()]
    appended = [record.timestamp / 1000 for record in newest if record.timestamp_type == _LOG_APPEND_TIME]
    if not appended:
        yield Finding("broker's clock", "ok", "unknown: no record has a timestamp of the broker")
    elif max(appended) - now > _MAX_CLOCK_DIFFERENCE:
        observed = f"{max(appended) - now:,.1f} s ahead of this machine's"
        yield Finding(
            "broker's clock", "warning", observed, "synchronise both clocks with NTP: timedatectl set-ntp true"
        )
    else:
        # Of the events alone: the topics between the stages get a record each second, whatever comes in.
        events = [
            record.timestamp / 1000
            for record in newest
            if record.topic == topics.events and record.timestamp_type == _LOG_APPEND_TIME
        ]
        observed = f"newest event was appended {_ago(now - max(events))} ago" if events else "no event has arrived yet"
        yield Finding("broker's clock", "ok", observed)
    lines = [record.value or b"" for record in newest if record.topic == topics.events]
    times = [event.ts / 1000 for event in decode_lines(lines) if not isinstance(event, InvalidEvent)]
    if not times:
        yield Finding("event time", "ok", "unknown: no valid event at the end of any partition")
        return
    observed = f"newest event at {datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M:%S} UTC"
    if max(times) - now > _MAX_EVENT_LEAD:
        advice = "correct the clock of the sender: such a page may become a dead letter"
        yield Finding("event time", "warning", f"{observed}, {_ago(max(times) - now)} ahead of now", advice)
    else:
        yield Finding("event time", "ok", f"{observed}, {_ago(now - max(times))} ago")


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{max(seconds, 0):,.0f} s"
