"""Renders the results of `bench.stream` as console tables and as a Markdown page."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import msgspec
from rich.table import Table

from bench.provenance import machine, versions
from bench.stream.driver import Run
from bench.stream.failover import SESSION_TIMEOUT_SECONDS, Failover
from bench.stream.latency import CLOSING_SECONDS, LatencyResult
from bench.stream.workload import WINDOW_SECONDS
from testkit.kafka_broker import kafka_home

RESULTS: Final = Path(__file__).parents[1] / "results" / "stream.md"


class Result(msgspec.Struct, kw_only=True):
    """All results. warm: runs on the longer log. failures: errors of steps that could not be measured."""

    command: str
    pages: int
    runs: list[Run] = []
    warm: list[Run] = []
    failovers: list[Failover] = []
    latency: LatencyResult | None = None
    failures: list[str] = []
    seconds: float = 0.0


class Section(NamedTuple):
    """A table: title, names of all columns except the first, rows."""

    title: str
    columns: list[str]
    rows: list[list[str]]


_SPEED_COLUMNS: Final[dict[str, Callable[[Run], str]]] = {
    "events": lambda run: f"{run.events:,}",
    "wall s": lambda run: f"{run.wall:.1f}",
    "events/s": lambda run: f"{run.events_per_second:,.0f}",
    "CPU s, user + system": lambda run: f"{run.cpu_user:.1f} + {run.cpu_system:.1f}",
    "events per CPU-s": lambda run: f"{run.events_per_cpu_second:,.0f}",
    "without start-up": lambda run: f"{run.events_per_working_cpu_second:,.0f}",
    "check": lambda run: run.check,
}
_COST_COLUMNS: Final[dict[str, Callable[[Run], str]]] = {
    "broker CPU s": lambda run: f"{run.broker_cpu:.1f}",
    "peak MB": lambda run: f"{run.peak_mb:,.0f}",
    "state MB": lambda run: f"{run.state_mb:,.0f}",
    "examples MB": lambda run: f"{run.out_mb:,.0f}",
    "start s": lambda run: f"{run.start:.1f}",
    "first output s": lambda run: f"{run.first_output:.1f}",
    "cores used by others": lambda run: f"{run.other_load_cores:.2f}",
}
_RATIO_METRICS: Final[dict[str, Callable[[Run], float]]] = {
    "events per CPU-s": lambda run: run.events_per_cpu_second,
    "without start-up": lambda run: run.events_per_working_cpu_second,
    "events/s": lambda run: run.events_per_second,
}
_NOTES: Final = f"""\
Both stages, exactly-once, 4 partitions, window {WINDOW_SECONDS} s, one broker on the same machine; every run has its
own topics and state. All programs receive the same bytes from the competitors' generator, which writes valid events:
ours through `prectr load` (lz4), the competitors through their own loader (uncompressed). Competitors run in their own
driver and are verified by their own check; ours is verified against an oracle that shares no code with the stages:
every page exactly once and in order, labels, levels, user and query counts as of the page's time, decayed sums within
1e-9, and the outcome of every event.
- *wall*: from the first record polled to the last example readable with isolation level read_committed. *CPU*: of the
  processes from start to exit (competitors: to the last example). *Without start-up*: from the first record to the last
  example.
- *client baseline*: kafka-python reads committed records and produces the same bytes in transactions of up to 8,192
  records, without decoding. *records*: each event as one record, from one topic to the next. *frames*: in frames over
  two topics, as the stages send.
- Faust runs on the first 50,000 pages; it is at-least-once.
- Failover: Kafka Streams commits every 100 ms there.
- *cores used by others*: other load on the machine. Times depend on it; compare within one run.

Targets: per CPU-second 1.3 × Kafka Streams, 1.8 × quixstreams, 15 × Faust; two processes at least Kafka Streams'
events/s; at least half of the client baseline."""


def sections(result: Result) -> Iterator[Section]:
    """All tables, without empty ones."""
    for runs, when in ((result.runs, ""), (result.warm, ", the longer log")):
        if runs:
            yield _run_section(f"Speed{when}", _SPEED_COLUMNS, runs)
            yield _run_section(f"Resource use{when}", _COST_COLUMNS, runs)
            ratios = list(_ratios(runs))
            if ratios:
                yield Section(f"Ratios{when}", list(_RATIO_METRICS), ratios)
    if result.failovers:
        yield _failover_section(result.failovers)
    if result.latency is not None:
        yield _latency_section(result.latency)
    if result.failures:
        yield Section("Not measured", ["why"], [[str(number + 1), why] for number, why in enumerate(result.failures)])


def console_tables(result: Result) -> list[Table]:
    """Render the tables for a console."""
    shown = []
    for section in sections(result):
        table = Table(title=section.title)
        table.add_column("")
        for name in section.columns:
            table.add_column(name, justify="right")
        for row in section.rows:
            table.add_row(*row)
        shown.append(table)
    return shown


def render_page(result: Result) -> str:
    """Render the result as a Markdown page."""
    kafka = next((path.stem for path in (kafka_home() or Path()).glob("libs/kafka_*.jar")), "Kafka")
    lines = [
        "# The live system on Kafka",
        "",
        f"`{result.command}`, {time.strftime('%Y-%m-%d')}, {machine()}, {result.seconds / 60:.0f} min. {kafka};"
        f" {versions('kafka-python', 'rocksdict', 'msgspec')}.",
        "",
        _NOTES,
    ]
    for section in sections(result):
        lines += ["", f"## {section.title}", f"| | {' | '.join(section.columns)} |"]
        lines.append(f"|---|{'---|' * len(section.columns)}")
        lines += [f"| {' | '.join(row)} |" for row in section.rows]
    return "\n".join(lines) + "\n"


def _run_section(title: str, columns: dict[str, Callable[[Run], str]], runs: Sequence[Run]) -> Section:
    return Section(title, list(columns), [[run.name, *[cell(run) for cell in columns.values()]] for run in runs])


def _ratios(runs: Sequence[Run]) -> Iterator[list[str]]:
    """Ours over each other, medians of all rounds."""
    names = list(dict.fromkeys(run.name for run in runs if run.wall))
    metrics = {
        name: [
            median(metric(run) for run in runs if run.name == name and run.wall) for metric in _RATIO_METRICS.values()
        ]
        for name in names
    }
    ours = [name for name in names if name.startswith("ours")]
    for ours_name in ours:
        for other in names:
            if other not in ours:
                pairs = zip(metrics[ours_name], metrics[other], strict=True)
                yield [f"{ours_name} / {other}", *[f"{a / b:.2f}" if b else "" for a, b in pairs]]


def _failover_section(failovers: Sequence[Failover]) -> Section:
    rows = []
    for name, state in dict.fromkeys((each.name, each.state) for each in failovers):
        same_kind = [each for each in failovers if (each.name, each.state) == (name, state)]
        all_partitions = [
            f"{each.all_partitions_seconds:.1f}" for each in same_kind if each.all_partitions_seconds is not None
        ]
        rows.append(
            [
                f"{name}, state {state}",
                ", ".join(f"{each.first_output_seconds:.1f}" for each in same_kind),
                ", ".join(all_partitions),
                ", ".join(f"{each.examples_at_kill:,}" for each in same_kind),
                f"{median(each.state_mb for each in same_kind):.0f}",
                ", ".join(dict.fromkeys(each.check for each in same_kind)),
            ]
        )
    title = (
        "Failover: one process killed with SIGKILL at 45 %, another started immediately;"
        f" session timeout {SESSION_TIMEOUT_SECONDS} s"
    )
    columns = ["first new output s", "output in every partition s", "examples at kill", "state MB", "check"]
    return Section(title, columns, rows)


def _latency_section(found: LatencyResult) -> Section:
    title = (
        f"Latency: one process at {found.actual_rate:,.0f} events/s (half of its speed: {found.target_rate:,.0f}),"
        f" event time at wall-clock speed, window {found.window_ms:,} ms, {found.pages:,} pages closed within"
        f" {CLOSING_SECONDS} s"
    )
    rows = [
        [name, *[f"{value:,.0f}" for value in values], found.check]
        for name, values in (
            ("page closed to example in the log", found.appended),
            ("page closed to example readable", found.readable),
        )
    ]
    return Section(title, ["p50 ms", "p99 ms", "largest ms", "check"], rows)
