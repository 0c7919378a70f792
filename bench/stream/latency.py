"""Latency at a constant load: from the close of a page until its example is available.

The log is scaled so that its event time advances at wall-clock speed; the window shrinks with it.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bench.stream.broker import StreamSystem
from bench.stream.follower import ExampleFollower
from bench.stream.oracle import check_topic, expected_output, read_committed
from bench.stream.runs import StreamBench
from bench.stream.workload import (
    PARTITIONS,
    Workload,
    events_to_scale,
    generate_workload,
    pages_for,
    scale_workload,
    stage_settings,
)
from prectr.state.errors import PrectrError
from prectr.stream.events.contract import Event, ResultPage
from prectr.stream.ordering.frames import decode_frame
from prectr.stream.records import decode_example

CLOSING_SECONDS: Final = 45
"""Duration of the measurement, during which pages close; it starts after one attribution window."""
_SETTLE_SECONDS: Final = 2.0
_READY_SECONDS: Final = 60.0

_decode = msgspec.json.Decoder(Event).decode


class LatencyResult(msgspec.Struct, kw_only=True):
    """Milliseconds since a page's close, that is since the broker's append time of the event that closed it.

    appended: until the broker's append time of the example's frame. readable: until a read_committed consumer receives
    it. Both: 50th and 99th percentile and maximum. target_rate, actual_rate: events per second.
    """

    target_rate: float
    actual_rate: float
    pages: int
    window_ms: int
    appended: tuple[float, float, float]
    readable: tuple[float, float, float]
    check: str


def measure_latency(bench: StreamBench, logs: Path, events_per_second: float) -> LatencyResult:
    """Feed a process of both stages at a constant rate and measure the latency of examples. logs: cache of logs."""
    workload = generate_workload(logs, pages_for(events_to_scale(events_per_second, CLOSING_SECONDS)))
    log = scale_workload(workload, bench.folder / "scaled.jsonl", events_per_second, CLOSING_SECONDS)
    with bench.new_system("latency") as (system, state):
        system.create_topics()
        bench.log_progress(f"latency at {events_per_second:,.0f} events/s")
        system_flags = [*system.flags, "--group-prefix", system.prefix, "--state-dir", str(state / "0")]
        program = bench.programs.start_prectr("stream", *system_flags, settings=stage_settings(log))
        _wait_for_groups(system)
        with closing(ExampleFollower(system)) as follower:
            loading = bench.programs.start_prectr(
                "load", str(log.path), *system.flags, "--speed", "1", settings={}, probe_first_record=False
            )
            while loading.poll():
                if not program.poll():
                    raise PrectrError(f"the stream process ended:\n{program.log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.1)
            _wait_until_idle(follower)
            arrivals = {(arrival.partition, arrival.offset): arrival.at for arrival in follower.arrivals}
        program.terminate()
        expected_examples = expected_output(log)
        check = check_topic(system.connection, system.topics.examples, PARTITIONS, expected_examples, flushed=False)
        closed, fed = _page_close_times(system, log)
        appended: list[float] = []
        readable: list[float] = []
        for record in read_committed(system.connection, system.topics.examples, PARTITIONS):
            for encoded in decode_frame(record.value, system.topics.examples).records:
                at = closed[decode_example(encoded).request_id]
                appended.append(record.timestamp - at)
                readable.append(1000 * arrivals[record.partition, record.offset] - at)
    log.path.unlink()
    return LatencyResult(
        target_rate=events_per_second,
        actual_rate=fed,
        pages=len(appended),
        window_ms=log.window,
        appended=_percentiles(appended),
        readable=_percentiles(readable),
        check=check.verdict,
    )


def _page_close_times(system: StreamSystem, log: Workload) -> tuple[dict[str, int], float]:
    """Close time of each page by request_id, ms by the broker's clock; and the rate of events per second."""
    closed: dict[str, int] = {}
    first, last, count = 1 << 62, 0, 0
    pages: list[list[tuple[int, str]]] = [[] for _ in range(PARTITIONS)]
    closed_count = [0] * PARTITIONS
    watermark = [0] * PARTITIONS
    for record in read_committed(system.connection, system.topics.events, PARTITIONS):
        event = _decode(record.value)
        number = record.partition
        first, last, count = min(first, record.timestamp), max(last, record.timestamp), count + 1
        watermark[number] = max(watermark[number], event.ts - log.lateness)
        # The log is in order of time, and so are the closes of its pages.
        while closed_count[number] < len(pages[number]) and pages[number][closed_count[number]][0] <= watermark[number]:
            closed[pages[number][closed_count[number]][1]] = record.timestamp
            closed_count[number] += 1
        if isinstance(event, ResultPage):
            pages[number].append((event.ts + log.window, event.request_id))
    return closed, count / max(1, last - first) * 1000


def _wait_for_groups(system: StreamSystem) -> None:
    """Wait until both stages have their tasks."""
    groups = [f"{system.prefix}{stage}" for stage in ("join", "aggregate")]
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        found: dict[str, Any] = system.connection.call_admin(lambda admin: admin.describe_groups(groups))
        if all(group["group_state"] == "Stable" for group in found.values()):
            break
        if time.monotonic() > deadline:
            raise PrectrError(f"the consumer groups of the stages are not stable after {_READY_SECONDS:g} s")
        time.sleep(0.2)
    time.sleep(_SETTLE_SECONDS)


def _wait_until_idle(follower: ExampleFollower) -> None:
    before = -1
    while follower.examples != before:
        before = follower.examples
        time.sleep(_SETTLE_SECONDS)


def _percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    if not values:
        return (0.0, 0.0, 0.0)
    median, high, largest = np.percentile(np.array(values), [50, 99, 100])
    return (float(median), float(high), float(largest))
