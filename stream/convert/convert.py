"""Conversion of foreign logs from files to a file."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol, get_args

from prectr.state.errors import ConfigError, UsageError
from prectr.stream.convert.event_log import EventLog, check_suffix
from prectr.stream.convert.external_sort import ExternalSorter
from prectr.stream.convert.mapped import MappedRows
from prectr.stream.convert.mapping import load_mapping
from prectr.stream.convert.metarank import MetarankEvents
from prectr.stream.convert.outcome import ConversionReport
from prectr.stream.convert.rows import Format, Row, read_rows
from prectr.stream.convert.ubi import UbiDocuments

SOURCES: Final = ("ubi", "metarank")
CLICK_ACTIONS: Final = ("click",)


class _Converter(Protocol):
    def add(self, row: Row) -> None:
        """Add a row."""

    def finish(self) -> None:
        """Convert what was gathered."""


def convert(
    source: str,
    inputs: Sequence[Path],
    out: Path,
    *,
    click_actions: Sequence[str] = CLICK_ACTIONS,
    on_progress: Callable[[int], None] = lambda _read: None,
) -> ConversionReport:
    """Convert foreign files to one log of events, sorted by event time, in bounded memory.

    Args:
        source: "ubi", "metarank", or the path of a mapping file (.toml).
        inputs: the files, together one log; their order does not matter.
        out: .jsonl, .jsonl.gz, .jsonl.zst or .parquet; replaced as a whole once everything is converted.
        click_actions: of UBI and Metarank, the actions that are clicks.
        on_progress: called now and then with the bytes of the inputs that have been read.

    Raises:
        UsageError: the source or a name says nothing.
        ConfigError: the mapping file is wrong.
        InputError: a file cannot be read.
    """
    check_suffix(out)
    if not inputs:
        raise UsageError("no input is named")
    report = ConversionReport()
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        events, gathered = (stack.enter_context(ExternalSorter(out.parent)) for _ in range(2))
        log = EventLog(events, report)
        file_format: Format | None = None
        delimiter: str | None = None
        converter: _Converter
        if source == "ubi":
            converter, file_format = UbiDocuments(log, gathered, report, click_actions), "jsonl"
        elif source == "metarank":
            converter = MetarankEvents(log, gathered, report, click_actions)
        elif source.endswith(".toml"):
            mapping = load_mapping(Path(source))
            converter = MappedRows(mapping, Path(source).parent, log, gathered, report)
            if mapping.input.format is not None and mapping.input.format not in get_args(Format):
                raise ConfigError(
                    f"input.format is {mapping.input.format!r}; it is one of {', '.join(get_args(Format))}"
                )
            file_format, delimiter = mapping.input.format, mapping.input.delimiter  # type: ignore[assignment]
        else:
            raise UsageError(f"source {source!r} is none of {', '.join(SOURCES)} and no mapping file (.toml)")
        read_before = 0
        for path in inputs:
            # Bound now, since the lambda outlives the turn of the loop.
            for row in read_rows(path, file_format, delimiter, lambda read, base=read_before: on_progress(base + read)):  # type: ignore[misc]
                converter.add(row)
            read_before += path.stat().st_size
        converter.finish()
        log.write(out)
    return report
