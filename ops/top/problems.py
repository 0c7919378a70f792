"""What is wrong with the system, in the words of the alerts: the lines above everything else on the screen."""

from collections.abc import Mapping, Sequence
from typing import Final

from prectr.ops.report.numbers import duration
from prectr.ops.top.stats import TaskState

_MAX_REJECTED: Final = 0.5
_MAX_NOT_JOINED: Final = 0.2
_MAX_CLOCK_LEAD: Final = 3_600.0
"""As the alerts PrectrEventsRejected, PrectrClicksNotJoined and PrectrClockAhead."""
_MIN_SILENCE: Final = 60.0
"""Seconds without an event that are worth a line where the usual rate is not known."""


def problems(
    *,
    at: float,
    broker_unreachable_seconds: float | None,
    tasks: Sequence[TaskState],
    rates: Mapping[str, float],
    silence: float | None,
    longest_usual_silence: float | None = None,
) -> list[str]:
    """Describe each problem in a line, the one that causes the others first.

    Args:
        at: time of day, in seconds since the epoch.
        broker_unreachable_seconds: largest of all processes; None if none exports it.
        tasks: of all stages.
        rates: records a second of late, by name: `in` (pages), `clicks`, `unreadable`, `rejected`, `not joined`.
        silence: seconds since the last event arrived; None if none has been seen to arrive.
        longest_usual_silence: seconds without one that the rate of late explains; None if that is not known.
    """
    found = []
    if broker_unreachable_seconds:
        found.append(f"Kafka has not answered for {duration(broker_unreachable_seconds)}: everything waits for it")
    for task in tasks:
        if task.stage == "join" and task.watermark is not None and task.watermark > at + _MAX_CLOCK_LEAD:
            found.append(
                f"partition {task.partition} of search-events: its watermark is {duration(task.watermark - at)} ahead "
                "of now (an event with a timestamp in the future), and its pages do not close"
            )
    events = sum(rates.get(name, 0.0) for name in ("in", "clicks", "unreadable"))
    if events > 0 and rates.get("rejected", 0.0) > _MAX_REJECTED * events:
        found.append(f"{rates['rejected'] / events:.0%} of the events are rejected: see prectr dlq list")
    clicks = rates.get("clicks", 0.0)
    if clicks > 0 and rates.get("not joined", 0.0) > _MAX_NOT_JOINED * clicks:
        found.append(f"{rates['not joined'] / clicks:.0%} of the clicks are not joined to a page")
    if silence is not None and silence >= (longest_usual_silence or _MIN_SILENCE) and not broker_unreachable_seconds:
        found.append(f"no event has arrived for {duration(silence)}")
    return found
