"""Small seeded logs, and places to cut them."""

import json
import random
from pathlib import Path
from typing import Any

from testkit.command import prectr, write_log
from testkit.oracle.contract import partition_of
from tests.oracle.other_forms import in_another_form
from tests.oracle.world import WINDOW, Disorder, make_world

LATENESS = 5_000


def simulated(folder: Path, pages: int = 1_500, seed: int = 5) -> Path:
    log = folder / f"simulated-{seed}-{pages}.jsonl"
    done = prectr("simulate", "--pages", str(pages), "--days", "2", "--seed", str(seed), "--out", log)
    assert done.returncode == 0, done.stderr
    return log


def of_many_forms(folder: Path, pages: int = 300) -> Path:
    """A simulated log with sessions, features, other actions, searches without hits and times of every form."""
    rng = random.Random(pages)
    lines = simulated(folder, pages).read_bytes().splitlines()
    changed = [
        new
        for line in lines
        for new in (in_another_form(rng, line) if rng.random() < 0.5 and _read(line) is not None else [line])
    ]
    return write_log(folder / f"of-many-forms-{pages}.jsonl", changed)


def adversarial(folder: Path, pages: int = 1_000, seed: int = 21) -> Path:
    log = folder / f"adversarial-{seed}-{pages}.jsonl"
    return write_log(log, make_world(seed, Disorder(pages=pages, users=150, gap=10.0)))


def split_orderly_log(log: Path, partitions: int, folder: Path) -> tuple[Path, Path]:
    """Split a well-behaved log where a pause of any length makes no record late.

    There, no page that is pending in a partition, or follows, closes before the watermark of all sources: the largest
    time seen minus the lateness.
    """
    lines = log.read_bytes().removesuffix(b"\n").split(b"\n")
    events = [_read(line) for line in lines]
    for split_at in range(len(lines) // 3, len(lines)):
        newest: dict[int, int] = {}
        for event in events[:split_at]:
            if event is not None:
                partition = partition_of(event["user_id"], partitions)
                newest[partition] = max(newest.get(partition, 0), event["ts"])
        watermark = max(newest.values()) - LATENESS
        closing_times = [
            event["ts"] + WINDOW
            for index, event in enumerate(events)
            if event is not None
            and event["type"] == "impression"
            and (
                index >= split_at
                or event["ts"] + WINDOW > newest[partition_of(event["user_id"], partitions)] - LATENESS
            )
        ]
        if min(closing_times, default=watermark + 1) > watermark:
            return (
                write_log(folder / "first.jsonl", lines[:split_at]),
                write_log(folder / "second.jsonl", lines[split_at:]),
            )
    raise AssertionError("this log cannot be split")


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        event: dict[str, Any] = json.loads(line)
        int(event["ts"]), str(event["user_id"])
        return event if event.get("type") in ("impression", "click") and isinstance(event["ts"], int) else None
    except (ValueError, KeyError, TypeError):
        return None
