"""`python -m bench.state`: CPU time per event with one million and with ten million keys of state."""

import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from prectr.state.store import Store
from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.events.partition import partitions_of
from prectr.stream.join.user_state import StoredUser
from prectr.stream.readers import open_log
from prectr.stream.replay.local_tasks import STORE_OPTIONS, EmbeddedTasks
from prectr.stream.simulator import WorldSettings, simulate

PARTITIONS: Final = 4
_FILL: Final = 100_000
_STEP: Final = 8_192


class SizeResult(msgspec.Struct):
    """One size of state: keys, bytes on disk, CPU seconds (all threads) and wall seconds per event, both stages."""

    keys: int
    disk_bytes: int
    cpu_seconds_per_event: float
    wall_seconds_per_event: float


class Result(msgspec.Struct):
    """All sizes, and the cost per event with the largest state relative to the smallest."""

    events: int
    sizes: list[SizeResult]
    cpu_ratio: float
    wall_ratio: float


def main(
    keys: Annotated[str, typer.Option(help="Numbers of users in the initial state, comma-separated, ascending.")] = (
        "1000000,10000000"
    ),
    pages: Annotated[int, typer.Option(help="Pages to process, with users drawn uniformly from the state.")] = 40_000,
    rounds: Annotated[int, typer.Option(help="Rounds; each size is measured in each, and the best counts.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file as JSON.")] = None,
) -> None:
    """Fill the stores of the `join` tasks with users, then process a log whose users are drawn uniformly from them.

    Uniform draws are the worst case: a user is rarely in RocksDB's cache. The files are in the page cache of the
    operating system, since the size of the state is measured, not a cold disk.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.jsonl")
        simulate(log, WorldSettings(pages=pages))
        counts = [int(count) for count in keys.split(",")]
        filled = {count: _fill_stores(Path(folder, f"filled-{count}"), count) for count in counts}
        best: dict[int, tuple[float, float]] = {}
        for number in range(rounds):
            for count in counts:
                lines = _replace_users(log, count, seed=number)
                run = Path(folder, "run")
                shutil.copytree(filled[count], run)
                _warm_page_cache(run)
                cpu, wall = _run_stages(run, lines)
                shutil.rmtree(run)
                print(f"round {number + 1}, {count:,} keys: {cpu * 1e6:.1f} µs of CPU per event")
                best[count] = min(best.get(count, (cpu, wall)), (cpu, wall))
        sizes = [SizeResult(count, _disk_bytes(filled[count]), *best[count]) for count in counts]
    result = Result(
        len(lines),
        sizes,
        sizes[-1].cpu_seconds_per_event / sizes[0].cpu_seconds_per_event,
        sizes[-1].wall_seconds_per_event / sizes[0].wall_seconds_per_event,
    )
    print(f"{len(lines):,} events, both stages, best of {rounds} rounds")
    print("| keys of state | on disk | CPU per event | wall time per event |\n|---|---|---|---|")
    for size in sizes:
        print(
            f"| {size.keys:,} | {size.disk_bytes / 1e6:,.0f} MB | {size.cpu_seconds_per_event * 1e6:.1f} µs "
            f"| {size.wall_seconds_per_event * 1e6:.1f} µs |"
        )
    print(f"ratio: {result.cpu_ratio:.2f} in CPU, {result.wall_ratio:.2f} in wall time")
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


def _fill_stores(folder: Path, count: int) -> Path:
    """Fill stores with `count` users who have earlier clicks, written in random key order."""
    draw = random.Random(1)
    stores = [Store(folder / f"join-{task}", STORE_OPTIONS) for task in range(PARTITIONS)]
    noise = draw.randbytes(1 << 20)  # incompressible
    for start in range(0, count, _FILL):
        users = [f"u{number}" for number in range(start, min(count, start + _FILL))]
        draw.shuffle(users)
        changes: list[dict[bytes, bytes | None]] = [{} for _ in stores]
        for user, task in zip(users, partitions_of(users, PARTITIONS), strict=True):
            at = draw.randrange(len(noise) - 64)
            clicks = [(ts, f"r{ts}", f"item-{ts}", noise[at : at + 60]) for ts in range(4)]
            entry = StoredUser(1_790_000_000_000, 0, (3, 9, 40, 60, 0, 1, 1, 2), clicks, [], {})
            changes[task][b"u" + user.encode()] = msgspec.msgpack.encode(entry)
        for store, changed in zip(stores, changes, strict=True):
            store.write(changed)
    for store in stores:
        store.checkpoint(store.path.with_name(store.path.name + ".flushed"))  # flushes what is in memory
        store.close()
        shutil.rmtree(store.path.with_name(store.path.name + ".flushed"))
    return folder


def _replace_users(log: Path, count: int, seed: int) -> list[bytes]:
    """The lines of the log, with users drawn uniformly from `count`, one per page."""
    draw = random.Random(seed)
    drawn: dict[str, str] = {}
    lines = []
    for batch in open_log([str(log)])[0].batches():
        for line in batch.lines:
            before, found, after = line.partition(b'"user_id":"')
            _, quote, rest = after.partition(b'"')
            # A page and its clicks share one draw.
            page = line.partition(b'"request_id":"')[2].partition(b'"')[0].decode(errors="replace")
            other = drawn.setdefault(page, f"u{draw.randrange(count)}")
            lines.append(before + found + other.encode() + quote + rest if found else line)
    return lines


def _warm_page_cache(folder: Path) -> None:
    """Read every file once, so that the disk of the machine is not measured."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                while handle.read(1 << 20):
                    pass


def _run_stages(folder: Path, lines: list[bytes]) -> tuple[float, float]:
    tasks = EmbeddedTasks(folder, PipelineConfig(partitions=PARTITIONS), LexicalLabeller())
    cpu, wall = time.process_time(), time.perf_counter()
    for start in range(0, len(lines), _STEP):
        tasks.process(lines[start : start + _STEP], start)
    tasks.flush()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    tasks.close()
    return cpu / len(lines), wall / len(lines)


def _disk_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    typer.run(main)
