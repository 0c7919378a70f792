"""The tables of a soak run: by interval of five minutes, by trend, by fault."""

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Final

from testkit.provenance import machine, versions
from tests.faults.soak.flatness import (
    EQUAL_AGE,
    MAX_COUNT_GROWTH,
    MAX_GROWTH,
    MAX_RESTARTED_GROWTH,
    Trend,
    trends,
)
from tests.faults.soak.run import LASTING, SoakResult
from tests.faults.soak.samples import SAMPLE_INTERVAL, Sample

_INTERVAL: Final = 300.0
_MIB: Final = 1 << 20
_METHOD: Final = (
    "Two stream processes with snapshots, a trainer and a monitor on a real broker run at half of the measured "
    "capacity, and once a minute a fault hits the broker or stream process 2; stream process 1, trainer and monitor "
    f"live from beginning to end. Every {SAMPLE_INTERVAL:.0f} s the kernel is asked for resident memory, open file "
    "descriptors and threads of each process. Flat: over the second half of the run, the Theil-Sen slope times the "
    f"duration of that half is at most {MAX_GROWTH:.0%} of the median; of descriptors and threads, "
    f"{MAX_COUNT_GROWTH:.0f} more are allowed in any case. Processes that were restarted are compared at an age of "
    f"{EQUAL_AGE[0]:.0f} to {EQUAL_AGE[1]:.0f} s: the median of the second half is at most "
    f"{MAX_RESTARTED_GROWTH:.0%} above that of the first. The broker is not judged. Equal: digests of examples, "
    "aggregates and weights, and the outcomes of all events, are those of the embedded replay of the events that were "
    "sent, and every refused event is a dead letter once."
)


def verdict(result: SoakResult) -> str:
    """Whether the processes that live throughout stay flat, and live equals replay."""
    growing = growing_trends(result)
    flat = "flat" if not growing else f"growing: {', '.join(f'{each.quantity} of {each.name}' for each in growing)}"
    return f"{'not equal' if result.problems else 'equal'} to the replay; {flat}"


def growing_trends(result: SoakResult) -> list[Trend]:
    """The trends that are not flat, of all processes but the broker, which is not ours."""
    return [trend for trend in trends(result.samples) if not trend.flat and trend.name != "broker"]


def markdown(result: SoakResult, command: str) -> str:
    """The whole page."""
    lines = [
        "# Soak",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {machine()}; "
        f"{versions('kafka-python', 'rocksdict', 'torch', 'prectr-streaming')}, Apache Kafka 4.",
        "",
        f"{result.seconds / 60:.0f} minutes at {result.rate:,.0f} events/s (capacity {result.capacity:,.0f}), "
        f"{result.events:,} events, {len(result.faults)} faults: {verdict(result)}.",
        "",
        _METHOD,
        "",
        *intervals(result),
        "",
        *_trend_table(result),
        "",
        *_fault_table(result),
    ]
    if result.problems:
        lines += ["", "## What went wrong", "", *(f"- {' '.join(problem.split())}" for problem in result.problems)]
    return "\n".join(lines) + "\n"


def intervals(result: SoakResult) -> Iterator[str]:
    """By five minutes and process: median memory in MiB, most descriptors, most threads; and the faults."""
    names = [name for name in (*LASTING, "stream 2", "broker") if any(each.name == name for each in result.samples)]
    yield f"| minutes | {' | '.join(names)} | trainer's lag | faults |"
    yield "|---" * (len(names) + 3) + "|"
    start = 0.0
    while start < result.seconds:
        end = start + _INTERVAL
        cells = [
            _cell([each for each in result.samples if each.name == name and start <= each.at < end]) for name in names
        ]
        faults = sum(start <= fault.at < end for fault in result.faults)
        lag = max((lag for at, lag in result.lags if start <= at < end), default=0)
        minutes = f"{start / 60:.0f}–{min(end, result.seconds) / 60:.0f}"
        yield f"| {minutes} | {' | '.join(cells)} | {lag:,.0f} | {faults} |"
        start = end
    yield ""
    yield (
        "Of each process: median resident memory in MiB, most file descriptors, most threads. Lag: the most records of "
        "training-examples that the trainer had not read."
    )


def _cell(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    memory = statistics.median(each.memory for each in samples) / _MIB
    return f"{memory:,.0f}, {max(each.descriptors for each in samples)}, {max(each.threads for each in samples)}"


def _trend_table(result: SoakResult) -> Iterator[str]:
    yield "| process | quantity | median, second half | growth | |"
    yield "|---" * 5 + "|"
    for trend in trends(result.samples):
        scale, unit = (_MIB, " MiB") if trend.quantity == "memory" else (1, "")
        how = "at equal age, " if trend.restarted else ""
        quantities = f"{trend.median / scale:,.1f}{unit} | {trend.growth / scale:+,.1f}{unit}"
        yield f"| {trend.name} | {trend.quantity} | {quantities} | {how}{'flat' if trend.flat else 'growing'} |"


def _fault_table(result: SoakResult) -> Iterator[str]:
    yield "| at | kind | what was done | said after | output again after |"
    yield "|---" * 5 + "|"
    for fault in result.faults:
        yield (
            f"| {fault.at:,.0f} s | {fault.kind} | {fault.description} | {_seconds(fault.said_after)} | "
            f"{_seconds(fault.recovered_after)} |"
        )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
