"""Reads the dead letters of a replay from its run folder: counts, lists, finds and exports them."""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from prectr.state.errors import CheckpointError, PrectrError, Remedy, UsageError
from prectr.stream.sinks.dead_letters import DeadLetter
from prectr.stream.sinks.exported_dead_letter import check_new_file, exported_line

Progress = Callable[[int, int], None]

_decode = msgspec.json.Decoder(DeadLetter).decode


class RunDeadLetterCount(msgspec.Struct):
    """Number of rejected records of a file with one reason."""

    reason: str
    file: str
    dead_letters: int = 0


class RunDeadLetterListing(msgspec.Struct, frozen=True):
    """A dead letter without its content.

    Attributes:
        dead_letter: its number, from 1, in the order in which they were written.
        line: its line (row) in the file, from 1.
        records: equal records that it stands for, on that line and those after it.
        size: of the value, in bytes.
    """

    dead_letter: int
    reason: str
    detail: str
    file: str
    line: int
    records: int
    size: int


class RunDeadLetterSummary(msgspec.Struct, frozen=True):
    """Rejected records of a replay: counts in descending order, and the newest dead letters first."""

    dead_letters: int
    counts: list[RunDeadLetterCount]
    newest: list[RunDeadLetterListing]


def read_dead_letters(run_dir: Path, progress: Progress) -> Iterator[tuple[int, DeadLetter]]:
    """Yield the dead letters of a replay with their numbers, from 1; `progress` receives bytes read and their total.

    Raises:
        CheckpointError: there is no replay in `run_dir`.
        PrectrError: the file cannot be read.
    """
    path = run_dir / "dead-letters.jsonl"
    if not path.exists():
        raise CheckpointError(f"{run_dir}: contains no dead letters of a replay", Remedy.OTHER_RUN_DIR)
    try:
        size, read = path.stat().st_size, 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return  # The run is still writing it.
                yield number, _decode(line)
                read += len(line)
                progress(read, size)
    except (OSError, msgspec.MsgspecError) as error:
        raise PrectrError(f"{path} cannot be read: {error}") from error


def summarise_run(
    run_dir: Path, progress: Progress, *, reason: str | None = None, limit: int = 10
) -> RunDeadLetterSummary:
    """Count the dead letters of a replay, and list the newest `limit`; with `reason`, only those that have it.

    Raises:
        PrectrError: as `read_dead_letters`.
    """
    counts: dict[tuple[str, str], RunDeadLetterCount] = {}
    newest: deque[RunDeadLetterListing] = deque(maxlen=limit)
    for number, letter in read_dead_letters(run_dir, progress):
        if reason in (None, letter.reason):
            key = letter.reason, letter.topic
            counts.setdefault(key, RunDeadLetterCount(*key)).dead_letters += letter.count
            newest.appendleft(
                RunDeadLetterListing(
                    number,
                    letter.reason,
                    letter.detail,
                    letter.topic,
                    letter.offset + 1,
                    letter.count,
                    len(letter.value),
                )
            )
    ordered = sorted(counts.values(), key=lambda count: (-count.dead_letters, count.reason, count.file))
    return RunDeadLetterSummary(sum(count.dead_letters for count in ordered), ordered, list(newest))


def find_run_dead_letter(run_dir: Path, number: str) -> DeadLetter:
    """Return the dead letter with a number, as listed by `summarise_run`.

    Raises:
        UsageError: it is not a number.
        PrectrError: there is none; or as `read_dead_letters`.
    """
    if not (number.isascii() and number.isdecimal() and len(number) < 20):
        raise UsageError(
            f"dead letter {number!r} is not a number; those of a replay are numbered from 1", Remedy.LIST_DEAD_LETTERS
        )
    last = 0
    for last, letter in read_dead_letters(run_dir, lambda read, size: None):
        if last == int(number):
            return letter
    raise PrectrError(f"there is no dead letter {number}: {run_dir} has {last:,}", Remedy.LIST_DEAD_LETTERS)


def export_run_dead_letters(run_dir: Path, out: Path, progress: Progress, *, reason: str | None = None) -> int:
    """Write the dead letters of a replay to a file, one per line; with `reason`, only those that have it.

    Returns:
        Their number.

    Raises:
        UsageError: the file exists; it may contain corrections.
        PrectrError: as `read_dead_letters`.
    """
    check_new_file(out)
    # A file with the final name is complete.
    part = out.with_name(f"{out.name}.part")
    count = 0
    try:
        with part.open("wb") as file:
            for number, letter in read_dead_letters(run_dir, progress):
                if reason in (None, letter.reason):
                    file.write(exported_line(str(number), letter.reason, letter.detail, letter.value))
                    count += 1
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return count
