"""Writes the events of a running system to files, from which they are loaded, checked or replayed again."""

import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from prectr.state.errors import InputError, PrectrError, StateError, UsageError
from prectr.state.private_files import make_empty_private_folder, open_private_file
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import fetch_end_offsets
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.topic_reader import Progress, TopicReader

_MAX_POLL_RECORDS: Final = 64
"""Of up to a megabyte each."""
_NAME: Final = re.compile(r"partition-(\d+)-offsets-(\d+)-to-(\d+)\.jsonl")
_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")
"""Between the tokens of JSON they are white space, and within a text JSON does not allow them."""


class ExportedPartition(msgspec.Struct, frozen=True):
    """The events of a partition from offset `first` to before offset `end`."""

    partition: int
    first: int
    end: int
    events: int


class ExportResult(msgspec.Struct, frozen=True):
    """Result of an export.

    Attributes:
        removed: records that retention had removed before the first that was written.
        open: records that were left out, since a transaction before them or with them was open.
    """

    topic: str
    events: int
    removed: int
    open: int
    partitions: list[ExportedPartition]


def export_events(
    connection: Connection,
    topics: Topics,
    folder: Path,
    progress: Progress,
    *,
    after: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> ExportResult:
    """Write the events that are committed now into a new folder: a file a partition, an event a line.

    The names of the files hold the offsets. A reader of the folder merges the files by event time, so that events
    whose users have come to another partition are in order as well.

    Args:
        after: folder of an earlier export, after whose end this one begins; None begins at the first event.
        stop: checked after every batch.

    Raises:
        UsageError: the folder exists.
        InputError: `after` is no export.
        StateError: the topic does not hold all events after the end of the earlier export.
        PrectrError: the broker does not answer, or the export was stopped; the folder is not made.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists: name a folder that does not")
    # Before the committed ends: what a producer sends in between is no transaction.
    ends = fetch_end_offsets(connection, topics.events)
    reader = TopicReader(connection, topics.events, max_poll_records=_MAX_POLL_RECORDS)
    # A folder with the final name is complete.
    part = folder.with_name(f"{folder.name}.part")
    try:
        starts = list(reader.start_offsets) if after is None else _next_offsets(reader, after)
        make_empty_private_folder(part)
        total = max(1, sum(reader.end_offsets) - sum(starts))
        exported: list[ExportedPartition] = []
        for partition, start in enumerate(starts):
            done = sum(each.end - each.first for each in exported)
            advance = partial(_advance, progress, done, total)
            exported.append(_export_partition(reader, partition, start, part, advance, stop))
        part.replace(folder)
    finally:
        reader.close()
        shutil.rmtree(part, ignore_errors=True)
    return ExportResult(
        topic=topics.events,
        events=sum(each.events for each in exported),
        removed=sum(starts) if after is None else 0,
        open=sum(max(0, end - committed) for end, committed in zip(ends, reader.end_offsets, strict=False)),
        partitions=exported,
    )


def _advance(progress: Progress, done: int, total: int, read: int) -> None:
    progress(done + read, total)


def _export_partition(
    reader: TopicReader,
    partition: int,
    first: int,
    folder: Path,
    progress: Callable[[int], None],
    stop: Callable[[], bool],
) -> ExportedPartition:
    end, events = reader.end_offsets[partition], 0
    with os.fdopen(
        open_private_file(folder / f"partition-{partition}-offsets-{first}-to-{end}.jsonl", os.O_WRONLY), "wb"
    ) as file:
        for records, position in reader.read_range(partition, first, end):
            for record in records:
                file.write((record.value or b"").translate(_LINE_BREAKS) + b"\n")
            events += len(records)
            progress(min(position, end) - first)
            if stop():
                raise PrectrError("stopped; nothing is written")
    return ExportedPartition(partition, first, end, events)


def _next_offsets(reader: TopicReader, export: Path) -> list[int]:
    """Return by partition the offset after the end of an earlier export; 0 for a partition that is new since then."""
    names = [_NAME.fullmatch(path.name) for path in export.iterdir()] if export.is_dir() else []
    ends = {int(match[1]): int(match[3]) for match in names if match is not None}
    if not ends:
        raise InputError(f"{export} is no folder that `prectr export` has written")
    found = []
    for partition, (first, end) in enumerate(zip(reader.start_offsets, reader.end_offsets, strict=True)):
        next_offset = ends.pop(partition, 0)
        if not first <= next_offset <= end:
            raise StateError(
                f"{reader.topic} partition {partition}: offset {next_offset} is the one after {export}, but the topic "
                f"holds {first} to before {end}: retention has removed events, or the topic was created again. Export "
                "it without --after"
            )
        found.append(next_offset)
    if ends:
        raise StateError(
            f"{export} has partition {min(ends)}, and {reader.topic} does not: the topic was created again, with fewer "
            "partitions. Export it without --after"
        )
    return found
