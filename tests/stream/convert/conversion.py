"""Conversions of small inputs, and the events that they write."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prectr.stream.convert.convert import convert
from prectr.stream.convert.outcome import ConversionReport

SHARED_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
T = 1_740_823_200_000
"""2025-03-01T10:00:00Z."""

Event = dict[str, Any]


def events_in(path: Path) -> list[Event]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def converted(
    folder: Path, source: str, inputs: Sequence[Path], **options: Any
) -> tuple[list[Event], ConversionReport]:
    """Convert, and return the events in the order of the log."""
    out = folder / "converted.jsonl"
    report = convert(source, inputs, out, **options)
    return events_in(out), report


def mapped(folder: Path, mapping: str, *inputs: Path) -> tuple[list[Event], ConversionReport]:
    """Convert by a mapping given as text."""
    path = folder / "mapping.toml"
    path.write_text(mapping, encoding="utf-8")
    return converted(folder, str(path), inputs)


def skipped(report: ConversionReport) -> dict[str, int]:
    return {reason: entry.count for reason, entry in report.skipped.items()}


def pages_of(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event["type"] == "impression"]


def clicks_of(events: Iterable[Event]) -> list[tuple[str, str, str, int]]:
    """Clicks as (request_id, user or session, item_id, ts)."""
    return [
        (event["request_id"], event.get("user_id") or event["session_id"], event["item_id"], event["ts"])
        for event in events
        if event["type"] == "click"
    ]
