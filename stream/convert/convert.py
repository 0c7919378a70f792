"""Conversion of foreign logs from files to a file."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from prectr.state.errors import InputError, UsageError
from prectr.stream.convert.event_log import EventLog
from prectr.stream.convert.external_sort import ExternalSorter
from prectr.stream.convert.mapped import MappedRows
from prectr.stream.convert.mapping import MappingFile, load_mapping
from prectr.stream.convert.metarank import MetarankEvents
from prectr.stream.convert.outcome import ConversionReport
from prectr.stream.convert.rows import Row, read_rows
from prectr.stream.convert.ubi import UbiDocuments
from prectr.stream.output_format import check_suffix

SOURCES: Final = ("ubi", "metarank")
CLICK_ACTIONS: Final = ("click", "click_through")


class _Converter(Protocol):
    def add(self, row: Row) -> None:
        """Add a row."""

    def finish(self) -> None:
        """Convert the rows that have been collected."""


def convert(
    source: str,
    inputs: Sequence[Path],
    out: Path,
    *,
    click_actions: Sequence[str] = CLICK_ACTIONS,
    max_rows: int | None = None,
    on_progress: Callable[[int], None] = lambda _read: None,
) -> ConversionReport:
    """Convert foreign files to one log of events, sorted by event time, in bounded memory.

    Args:
        source: "ubi", "metarank", or the path of a mapping file (.toml).
        inputs: the files, together one log; their order decides nothing but the order of events of equal time.
        out: .jsonl, .jsonl.gz, .jsonl.zst or .parquet; replaced as a whole once everything is converted.
        click_actions: of UBI and Metarank, the actions that are clicks.
        max_rows: the most rows to convert of each input; None for all.
        on_progress: called from time to time with the bytes of the inputs that have been read.

    Raises:
        UsageError: the source or a name is unknown, or the output is one of the inputs.
        ConfigError: the mapping file is wrong.
        InputError: a file cannot be read.
    """
    check_suffix(out)
    _check_inputs(inputs, out)
    mapping = _mapping_of(source)
    report = ConversionReport()
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        events, collected = (stack.enter_context(ExternalSorter(out.parent)) for _ in range(2))
        log = EventLog(events, report)
        converter: _Converter
        if mapping is not None:
            converter = MappedRows(mapping, Path(source).parent, log, collected, report)
        elif source == "ubi":
            converter = UbiDocuments(log, collected, report, click_actions)
        else:
            converter = MetarankEvents(log, collected, report, click_actions)
        read_before = 0

        def on_bytes(read: int) -> None:
            on_progress(read_before + read)

        for path in inputs:
            if mapping is None:
                rows = read_rows(path, on_bytes=on_bytes, default_format="jsonl")
            else:
                rows = read_rows(path, mapping.input.format, mapping.input.delimiter, on_bytes)
            for row in islice(rows, max_rows):
                converter.add(row)
            read_before += path.stat().st_size
        converter.finish()
        log.write(out)
    return report


def _check_inputs(inputs: Sequence[Path], out: Path) -> None:
    if not inputs:
        raise UsageError("no input is named")
    resolved = set()
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path} does not exist")
        if path.resolve() in resolved:
            raise UsageError(f"{path} is named twice")
        resolved.add(path.resolve())
    if out.resolve() in resolved:
        raise UsageError(f"the output {out} is one of the inputs; choose another name")


def _mapping_of(source: str) -> MappingFile | None:
    """Return the mapping that a source names; None for UBI and Metarank."""
    if source in SOURCES:
        return None
    if not source.endswith(".toml"):
        raise UsageError(f"source {source!r} is none of {', '.join(SOURCES)}, and no mapping file (.toml)")
    return load_mapping(Path(source))
