"""The log of these tests, how it is written, and a run that is stopped between two steps."""

import gzip
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from prectr.stream.replay.runner import Replay
from tests.oracle.world import Disorder, make_world

DISORDER = Disorder(pages=120, users=12, gap=20.0, late=0.1, jump=0.03, nights=1, confirmed_jumps=1, malformed=0.08)


@cache
def world(seed: int = 0) -> list[bytes]:
    """Lines of a small log with all that goes wrong in one."""
    return make_world(seed, DISORDER)


def write(path: Path, lines: list[bytes]) -> Path:
    """Write lines to a file, compressed if its name says so."""
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


class StopHere(Exception):
    """Thrown by a progress bar, between two steps."""


def stopping_at(step: int, seen: Callable[[Replay], None] = lambda replay: None) -> Callable[[Replay], None]:
    """A progress bar that stops a run at a step, and shows it to `seen` before each."""
    steps = iter(range(1, 1 << 30))

    def progress(replay: Replay) -> None:
        seen(replay)
        if next(steps) == step:
            raise StopHere

    return progress


def parts_of(tmp_path: Path, count: int = 3) -> list[Path]:
    lines = world()
    ends = [len(lines) * part // count for part in range(count + 1)]
    return [write(tmp_path / f"part{part}.jsonl", lines[ends[part] : ends[part + 1]]) for part in range(count)]


def letters(run_dir: Path) -> list[dict[str, str | int]]:
    """The dead letters of a run."""
    with (run_dir / "dead-letters.jsonl").open("rb") as lines:
        return [json.loads(line) for line in lines]
