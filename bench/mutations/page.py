"""Renders the result of `bench.mutations` as console tables and as a Markdown page."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from rich.table import Table

from bench.mutations.event_stream import Composition
from bench.mutations.live_run import LiveResult
from bench.mutations.memory_trace import MemorySample
from bench.mutations.verdict import Check, live_outcomes
from testkit.kafka_broker import kafka_home
from testkit.provenance import machine, versions

RESULTS: Final = Path(__file__).parents[1] / "results" / "mutations.md"
_POINTS: Final = (0.1, 0.25, 0.5, 0.75, 1.0)


class Result(msgspec.Struct, kw_only=True):
    """A whole run. edits: different edits that hypothesis made. dead_letters: by reason."""

    command: str
    seed: int
    edits: int
    composition: Composition
    live: LiveResult
    dead_letters: dict[str, int]
    checks: list[Check]
    seconds: float


class Section(NamedTuple):
    """A table: title, names of the columns, rows."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]]


def sections(result: Result) -> Iterator[Section]:
    """All tables."""
    live = result.live
    yield Section(
        "Checks",
        ("check", "expected", "found", ""),
        [[each.name, each.expected[:60], each.found[:60], "ok" if each.holds else "FAILED"] for each in result.checks],
    )
    records = live.lines + live.direct
    speed = records / live.seconds if live.seconds else 0.0
    yield Section(
        "Run",
        ("", ""),
        [
            ["mutated events", f"{result.composition.mutated:,}"],
            ["untouched events between them", f"{result.composition.untouched:,}"],
            ["lines loaded, records produced directly", f"{live.lines:,}, {live.direct:,}"],
            ["records in aborted transactions", f"{live.aborted:,}"],
            ["records processed per second, loads included", f"{speed:,.0f}"],
        ],
    )
    outcomes = live_outcomes(live)
    counts = {"unreadable": outcomes.unreadable}
    for name, each in (("pages", outcomes.pages), ("clicks", outcomes.clicks)):
        counts |= {f"{name}: {outcome}": count for outcome, count in msgspec.structs.asdict(each).items()}
    yield _counts("Outcomes", ("outcome", "records"), counts)
    yield _counts("Dead letters", ("reason", "records"), result.dead_letters)
    yield _counts("Mutated events by source", ("source", "events"), result.composition.sources)
    yield _counts("Mutations by kind", ("kind", "mutations"), result.composition.kinds)
    yield _counts("Direct records by shape", ("shape", "records"), live.shapes)
    yield _memory(live)


def console_tables(result: Result) -> list[Table]:
    """Render the tables for a console."""
    shown = []
    for section in sections(result):
        table = Table(title=section.title)
        for name in section.columns:
            table.add_column(name)
        for row in section.rows:
            table.add_row(*row)
        shown.append(table)
    return shown


def render_page(result: Result) -> str:
    """Render the result as a Markdown page."""
    kafka = next((path.stem for path in (kafka_home() or Path()).glob("libs/kafka_*.jar")), "Kafka")
    lines = [
        "# Mutated events",
        "",
        f"`{result.command}`, seed {result.seed}, {time.strftime('%Y-%m-%d')}, {machine()}, "
        f"{result.seconds / 60:.0f} min. {kafka}; {versions('kafka-python', 'rocksdict', 'msgspec', 'hypothesis')}.",
    ]
    for section in sections(result):
        lines += ["", f"## {section.title}", f"| {' | '.join(section.columns)} |", "|---" * len(section.columns) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in section.rows]
    return "\n".join(lines) + "\n"


def _counts(title: str, columns: Sequence[str], counts: Mapping[str, int]) -> Section:
    rows = sorted(counts.items(), key=lambda pair: -pair[1])
    return Section(title, columns, [[name, f"{count:,}"] for name, count in rows])


def _memory(live: LiveResult) -> Section:
    columns = ["process", *(f"at {point:.0%}" for point in _POINTS), "largest", "CPU s"]
    rows = []
    for name in dict.fromkeys(process.name for process in live.processes):
        peak = max(process.peak for process in live.processes if process.name == name)
        cpu = sum(process.cpu for process in live.processes if process.name == name)
        rows.append([name, *_at_points(live.memory.get(name, [])), f"{peak:,.0f}", f"{cpu:,.0f}"])
    return Section("Resident memory in MB, by share of the records processed", columns, rows)


def _at_points(samples: Sequence[MemorySample]) -> Iterator[str]:
    last = max((sample.records for sample in samples), default=0)
    for point in _POINTS:
        before = [sample.resident for sample in samples if sample.records <= point * last]
        yield f"{before[-1]:,.0f}" if before else ""
