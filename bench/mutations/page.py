"""Renders the result of `bench.mutations` as console tables and as a Markdown page."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from rich.table import Table

from bench.mutations.live_run import LiveResult
from bench.mutations.measurement import Result
from bench.mutations.memory_trace import MemorySample
from bench.mutations.verdict import live_outcomes
from testkit.kafka_broker import kafka_home
from testkit.provenance import machine, versions

RESULTS: Final = Path(__file__).parents[1] / "results" / "mutations.md"
_POINTS: Final = (0.1, 0.25, 0.5, 0.75, 1.0)
_CELL_CHARACTERS: Final = 100
_NOTES: Final = """\
Every event below went through a real broker. The *live system* is two stream processes and a trainer (`lr`), at work
while nine tenths of the events are loaded from files by `prectr load` and the rest are sent as records that no loader
would write: with other keys, as tombstones, framed, compressed, beside aborted transactions. At the end all processes
are stopped by SIGTERM, and run again to the end of the log with a flush. *Misplaced events* are a second system, whose
records lie in partitions that are not their users'; a replay of files cannot have those.
- *Found* are the system's own counts, or what a consumer of the benchmark read from the topics; *expected* is counted
  apart from the system: lines in the files, acknowledged records, offsets on the topics.
- The *oracle* is that of the tests: it reads each value with the JSON parser of the standard library and shares no code
  with the system. An object with a name that occurs twice is not judged; there the system's word is taken.
- Outcomes are pages (received, emitted, open, empty, duplicate, dead letter), clicks (received, joined, duplicate,
  late, orphan, foreign, waiting, other action, dead letter), unreadable.
- hypothesis made a pool of edits; each was applied to many events, alone or with another. Kinds are counted per
  mutation, and an event can have several."""


class Section(NamedTuple):
    """A table: title, names of the columns, rows."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]]


def sections(result: Result) -> Iterator[Section]:
    """All tables."""
    for group, checks in result.checks.items():
        if not checks:
            continue
        rows = [
            [each.name, *map(_cell, (each.expected, each.found)), "ok" if each.holds else "FAILED"] for each in checks
        ]
        yield Section(f"Checks: {group}", ("check", "expected", "found", ""), rows)
    yield _run(result)
    yield _memory(result.live)
    both = live_outcomes(result.live) + live_outcomes(result.misplaced)
    counts = {"unreadable": both.unreadable}
    for name, each in (("pages", both.pages), ("clicks", both.clicks)):
        counts |= {f"{name}: {outcome}": count for outcome, count in msgspec.structs.asdict(each).items()}
    yield _counts("Outcomes", ("outcome", "records"), counts)
    yield _counts("Dead letters", ("reason", "records"), result.dead_letters)
    yield _counts("Mutated events by source", ("source", "events"), result.composition.sources)
    yield _counts("Mutations by kind", ("kind", "mutations"), result.composition.kinds)
    shapes = {
        name: result.live.shapes.get(name, 0) + result.misplaced.shapes.get(name, 0)
        for name in {**result.live.shapes, **result.misplaced.shapes}
    }
    yield _counts("Records sent directly, by shape", ("shape", "records"), shapes)


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


def render_page(result: Result, command: str) -> str:
    """Render the result as a Markdown page."""
    kafka = next((path.stem for path in (kafka_home() or Path()).glob("libs/kafka_*.jar")), "Kafka")
    lines = [
        "# Mutated events",
        "",
        f"`{command}`, seed {result.seed}, {time.strftime('%Y-%m-%d')}, {machine()}, {result.seconds / 60:.0f} min."
        f" {kafka}; {versions('kafka-python', 'rocksdict', 'msgspec', 'hypothesis')}.",
        "",
        _NOTES,
    ]
    for section in sections(result):
        lines += ["", f"## {section.title}", f"| {' | '.join(section.columns)} |", "|---" * len(section.columns) + "|"]
        lines += [f"| {' | '.join(cell.replace('|', ';') for cell in row)} |" for row in section.rows]
    return "\n".join(lines) + "\n"


def _run(result: Result) -> Section:
    live, misplaced = result.live, result.misplaced
    records = live.lines + live.direct
    rows = {
        "mutated events": f"{result.composition.mutated:,}",
        "untouched events between them": f"{result.composition.untouched:,}",
        "different edits by hypothesis": f"{result.edits:,}",
        "lines loaded": f"{live.lines:,}",
        "records sent directly": f"{live.direct:,}, misplaced {misplaced.direct:,}",
        "codecs of these": ", ".join(["none", *live.codecs]),
        "records in aborted transactions": f"{live.aborted + misplaced.aborted:,}",
        "values that the oracle did not judge": f"{result.unjudged:,}",
        "records per second, from the first load until all were processed": f"{records / live.seconds:,.0f}",
    }
    return Section("Run", ("", ""), [[name, text] for name, text in rows.items()])


def _counts(title: str, columns: Sequence[str], counts: Mapping[str, int]) -> Section:
    rows = sorted(counts.items(), key=lambda pair: -pair[1])
    return Section(title, columns, [[name, f"{count:,}"] for name, count in rows])


def _memory(live: LiveResult) -> Section:
    columns = ["process", *(f"at {point:.0%}" for point in _POINTS), "largest", "CPU s"]
    rows = []
    for name in dict.fromkeys(process.name for process in live.processes):
        samples = live.memory.get(name, [])
        # The peak is 0 where a process had ended when it was first looked at.
        peak = max(
            *(process.peak for process in live.processes if process.name == name),
            *(sample.resident for sample in samples),
            0.0,
        )
        cpu = sum(process.cpu for process in live.processes if process.name == name)
        rows.append([name, *_at_points(samples), f"{peak:,.0f}", f"{cpu:,.0f}"])
    return Section("Resident memory in MB, by share of the records processed", columns, rows)


def _at_points(samples: Sequence[MemorySample]) -> Iterator[str]:
    last = max((sample.records for sample in samples), default=0)
    for point in _POINTS:
        before = [sample.resident for sample in samples if sample.records <= point * last]
        yield f"{before[-1]:,.0f}" if before else ""


def _cell(text: str) -> str:
    return text if len(text) <= _CELL_CHARACTERS else text[:_CELL_CHARACTERS] + "…"
