"""The events of `bench.stream`: the output of the competitors' generator, unchanged or scaled in event time."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from prectr.state.errors import UsageError
from prectr.stream.events.contract import Click, Event

WINDOW_SECONDS: Final = 600
"""Attribution window of the workload."""
LATENESS_SECONDS: Final = 5
"""Default of `allowed_lateness`."""
PARTITIONS: Final = 4
_PAGE_MS: Final = 20
"""Event time between pages in the generator's log."""
_EVENTS_PER_PAGE: Final = 1.5
"""One page event, and half a click."""

_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


class Workload(NamedTuple):
    """A log with one event per line, in order of time. window: attribution window in ms of event time."""

    path: Path
    pages: int
    events: int
    bytes: int
    window: int

    @property
    def lateness(self) -> int:
        """`allowed_lateness` of the stages in ms of event time, scaled like the window."""
        return round(LATENESS_SECONDS * 1000 * self.window / (WINDOW_SECONDS * 1000))


def competitors_home() -> Path:
    """Folder of the generator and the competitors: PRECTR_PEERS, or the default beside the checkout.

    Raises:
        UsageError: the folder has no generator.
    """
    named = os.environ.get("PRECTR_PEERS")
    home = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "peers"
    if not (home / "gen.py").exists():
        raise UsageError(f"{home}: no event generator (gen.py) found: set PRECTR_PEERS to the competitors' folder")
    return home


def generate_workload(folder: Path, pages: int, limit: int | None = None) -> Workload:
    """Write a log of `pages` pages, unless `folder` has it. limit: truncate it to this number of pages."""
    name = f"events-{pages}.jsonl" if limit is None else f"events-{pages}-{limit}.jsonl"
    path = folder / name
    if not path.exists():
        part = path.with_suffix(".part")
        command = [sys.executable, str(competitors_home() / "gen.py"), "write", str(part), "--pages", str(pages)]
        subprocess.run(
            [*command, *([] if limit is None else ["--limit", str(limit)])], check=True, stdout=subprocess.DEVNULL
        )
        part.rename(path)
    with path.open("rb") as lines:
        events = sum(1 for _ in lines)
    return Workload(path, limit or pages, events, path.stat().st_size, WINDOW_SECONDS * 1000)


def events_to_scale(events_per_second: float, seconds: float) -> int:
    """Number of events that `scale_workload` needs for a rate and a duration."""
    return round(WINDOW_SECONDS * _EVENTS_PER_PAGE * 1000 / _PAGE_MS + events_per_second * seconds)


def pages_for(events: int) -> int:
    """Number of pages, rounded up to thousands, for at least this number of events."""
    return -(-events // round(_EVENTS_PER_PAGE * 1000)) * 1000


def scale_workload(source: Workload, path: Path, events_per_second: float, seconds: float) -> Workload:
    """Scale the beginning of a log to `events_per_second` of event time; pages close for `seconds` seconds.

    Window, click delays and gaps are scaled by the same factor, so the number of pending pages stays the same.
    """
    speed = events_per_second / (_EVENTS_PER_PAGE * 1000 / _PAGE_MS)
    window = max(1, round(source.window / speed))
    count = pages = 0
    first: int | None = None
    with source.path.open("rb") as lines, path.open("wb") as out:
        for line in lines:
            event = _decode(line)
            first = event.ts if first is None else first
            elapsed = (event.ts - first) / speed
            if elapsed > window + seconds * 1000:
                break
            event.ts = first + round(elapsed)
            out.write(_encode(event) + b"\n")
            count += 1
            pages += not isinstance(event, Click)
    return Workload(path, pages, count, path.stat().st_size, window)


def stage_settings(workload: Workload) -> dict[str, str]:
    """Settings of the stages as environment variables: window and lateness in event time."""
    return {
        "PRECTR_ATTRIBUTION_WINDOW": f"{workload.window}ms",
        "PRECTR_ALLOWED_LATENESS": f"{workload.lateness}ms",
    }
