"""Latency at a steady load: from the moment a page closes to the moment its example is there.

The log is scaled so that its event time runs as the wall clock does; the window shrinks with it.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bench.stream.broker import System
from bench.stream.follower import Follower
from bench.stream.oracle import checked, committed, expected
from bench.stream.runs import Bench
from bench.stream.workload import PARTITIONS, Workload, events_for, pages_for, scaled, settings, written
from prectr.state.errors import PrectrError
from prectr.stream.events.contract import Event, Impression
from prectr.stream.ordering.frames import decode_frame
from prectr.stream.records import decode_example

CLOSING_SECONDS: Final = 45
"""For so long pages close; before that, one window goes by."""
_QUIET_SECONDS: Final = 2.0
_READY_SECONDS: Final = 60.0

_decode = msgspec.json.Decoder(Event).decode


class Latency(msgspec.Struct, kw_only=True):
    """Milliseconds from a page's close, that is the broker's time of the event that closed it.

    appended: to the broker's time of the frame that holds the example. readable: to the moment at which a consumer
    that reads committed has it; 50th and 99th percentile and the largest. asked, fed: events a second.
    """

    asked: float
    fed: float
    pages: int
    window_ms: int
    appended: tuple[float, float, float]
    readable: tuple[float, float, float]
    check: str


def latency(bench: Bench, logs: Path, events_a_second: float) -> Latency:
    """Feed a running process of both stages at this rate and see how late the examples are. logs: where logs are."""
    workload = written(logs, pages_for(events_for(events_a_second, CLOSING_SECONDS)))
    log = scaled(workload, bench.folder / "scaled.jsonl", events_a_second, CLOSING_SECONDS)
    with bench.fresh("latency") as (system, state):
        system.created()
        bench.say(f"latency at {events_a_second:,.0f} events/s")
        where = [*system.flags, "--group-prefix", system.prefix, "--state-dir", str(state / "0")]
        program = bench.programs.prectr("stream", *where, settings=settings(log))
        _wait_for_groups(system)
        with closing(Follower(system)) as follower:
            loading = bench.programs.prectr(
                "load", str(log.path), *system.flags, "--speed", "1", settings={}, marked=False
            )
            while loading.look():
                if not program.look():
                    raise PrectrError(f"the stream process ended:\n{program.log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.1)
            _wait_until_quiet(follower)
            arrivals = {(arrival.partition, arrival.offset): arrival.at for arrival in follower.arrivals}
        program.stop()
        due = expected(log)
        check = checked(system.connection, system.topics.examples, PARTITIONS, due, flushed=False)
        closed, fed = _closed(system, log)
        appended: list[float] = []
        readable: list[float] = []
        for record in committed(system.connection, system.topics.examples, PARTITIONS):
            for encoded in decode_frame(record.value, system.topics.examples).records:
                at = closed[decode_example(encoded).request_id]
                appended.append(record.timestamp - at)
                readable.append(1000 * arrivals[record.partition, record.offset] - at)
    log.path.unlink()
    return Latency(
        asked=events_a_second,
        fed=fed,
        pages=len(appended),
        window_ms=log.window,
        appended=_percentiles(appended),
        readable=_percentiles(readable),
        check=check.verdict,
    )


def _closed(system: System, log: Workload) -> tuple[dict[str, int], float]:
    """When each page closed, ms by the broker's clock, by request_id; and events a second as they came in."""
    closed: dict[str, int] = {}
    first, last, count = 1 << 62, 0, 0
    pages: list[list[tuple[int, str]]] = [[] for _ in range(PARTITIONS)]
    taken = [0] * PARTITIONS
    watermark = [0] * PARTITIONS
    for record in committed(system.connection, system.topics.events, PARTITIONS):
        event = _decode(record.value)
        number = record.partition
        first, last, count = min(first, record.timestamp), max(last, record.timestamp), count + 1
        watermark[number] = max(watermark[number], event.ts - log.lateness)
        # A log in order of time: so are its pages' closes.
        while taken[number] < len(pages[number]) and pages[number][taken[number]][0] <= watermark[number]:
            closed[pages[number][taken[number]][1]] = record.timestamp
            taken[number] += 1
        if isinstance(event, Impression):
            pages[number].append((event.ts + log.window, event.request_id))
    return closed, count / max(1, last - first) * 1000


def _wait_for_groups(system: System) -> None:
    """Wait until both stages have their tasks."""
    groups = [f"{system.prefix}{stage}" for stage in ("sessions", "queries")]
    until = time.monotonic() + _READY_SECONDS
    while True:
        found: dict[str, Any] = system.connection.ask(lambda admin: admin.describe_groups(groups))
        if all(group["group_state"] == "Stable" for group in found.values()):
            break
        if time.monotonic() > until:
            raise PrectrError(f"the stages' groups have not come to rest in {_READY_SECONDS:g} s")
        time.sleep(0.2)
    time.sleep(_QUIET_SECONDS)


def _wait_until_quiet(follower: Follower) -> None:
    before = -1
    while follower.examples != before:
        before = follower.examples
        time.sleep(_QUIET_SECONDS)


def _percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    if not values:
        return (0.0, 0.0, 0.0)
    median, high, largest = np.percentile(np.array(values), [50, 99, 100])
    return (float(median), float(high), float(largest))
