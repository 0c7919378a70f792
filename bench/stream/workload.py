"""The events of `bench.stream`: what the peers' generator writes, as it is or scaled to another speed of time."""

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
"""`allowed_lateness` as it is by default."""
PARTITIONS: Final = 4
_PAGE_MS: Final = 20
"""Event time from one page to the next in the generator's log."""
_EVENTS_PER_PAGE: Final = 1.5
"""The page itself, and half a click."""

_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


class Workload(NamedTuple):
    """A log: one event a line, in order of time. window: attribution window, in ms of its event time."""

    path: Path
    pages: int
    events: int
    bytes: int
    window: int

    @property
    def lateness(self) -> int:
        """The stages' `allowed_lateness`, in ms of the log's event time; scaled as the window is."""
        return round(LATENESS_SECONDS * 1000 * self.window / (WINDOW_SECONDS * 1000))


def competitors_home() -> Path:
    """Where generator and peers are: PRECTR_PEERS, else the folder beside the checkout.

    Raises:
        UsageError: they are not there.
    """
    named = os.environ.get("PRECTR_PEERS")
    home = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "peers"
    if not (home / "gen.py").exists():
        raise UsageError(f"{home}: no generator of events (gen.py) there: set PRECTR_PEERS to the peers' folder")
    return home


def generate_workload(folder: Path, pages: int, limit: int | None = None) -> Workload:
    """Write the log of so many pages, unless `folder` has it. limit: only the first so many of them."""
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
    """How many events a log must have to be `scaled` so."""
    return round(WINDOW_SECONDS * _EVENTS_PER_PAGE * 1000 / _PAGE_MS + events_per_second * seconds)


def pages_for(events: int) -> int:
    """How many pages come with at least so many events, in thousands."""
    return -(-events // round(_EVENTS_PER_PAGE * 1000)) * 1000


def scale_workload(source: Workload, path: Path, events_per_second: float, seconds: float) -> Workload:
    """The beginning of a log at another speed: so many events a second of event time; pages close for so many seconds.

    Window, click delays and gaps all shrink by the same factor, so as much is open at a time as before.
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
    """What the stages must be told, as environment: window and lateness in seconds of the log's event time."""
    return {
        "PRECTR_ATTRIBUTION_WINDOW": f"{workload.window}ms",
        "PRECTR_ALLOWED_LATENESS": f"{workload.lateness}ms",
    }
