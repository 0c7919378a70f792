"""A log with disorder, how it is written to files, and a run that is stopped between two steps."""

import gzip
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from prectr.stream.replay.runner import Replay
from tests.oracle.world import Disorder, make_world

DISORDER = Disorder(pages=120, users=12, gap=20.0, late=0.1, jump=0.03, nights=1, confirmed_jumps=1, malformed=0.08)


@cache
def disordered_log(seed: int = 0) -> list[bytes]:
    """Lines of a small log with every kind of disorder."""
    return make_world(seed, DISORDER)


def write_lines(path: Path, lines: list[bytes]) -> Path:
    """Write lines to a file, compressed if its name says so."""
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


class StopReplay(Exception):
    """Raised by a progress callback between two steps."""


def stop_at_step(step: int, before_step: Callable[[Replay], None] = lambda replay: None) -> Callable[[Replay], None]:
    """Return a progress callback that stops a run at a step and calls `before_step` before each step."""
    steps = iter(range(1, 1 << 30))

    def on_progress(replay: Replay) -> None:
        before_step(replay)
        if next(steps) == step:
            raise StopReplay

    return on_progress


def split_log(tmp_path: Path, count: int = 3) -> list[Path]:
    lines = disordered_log()
    ends = [len(lines) * part // count for part in range(count + 1)]
    return [write_lines(tmp_path / f"part{part}.jsonl", lines[ends[part] : ends[part + 1]]) for part in range(count)]


def read_dead_letters(run_dir: Path) -> list[dict[str, str | int]]:
    """Read the dead letters of a run."""
    with (run_dir / "dead-letters.jsonl").open("rb") as lines:
        return [json.loads(line) for line in lines]
