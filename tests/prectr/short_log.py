"""A log of thirty pages, each with a click."""

from pathlib import Path

from testkit.command import write_log
from tests.kit.stages.events import SECOND, T, click, page

PAGES = 30


def short_log(folder: Path) -> Path:
    """Write the log; returns its path."""
    events = []
    for number in range(PAGES):
        ts, user = T + 30 * SECOND * number, f"u{number % 7}"
        events += [
            page(f"r{number}", user, ts, query=f"query {number % 3}"),
            click(f"r{number}", user, ts + 5 * SECOND),
        ]
    return write_log(folder / "log.jsonl", events)
