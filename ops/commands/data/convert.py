"""`prectr convert`: logs of other systems to a log of events."""

import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.terminal_escape import printable
from prectr.state.errors import PrectrError, UsageError
from prectr.stream.convert.convert import CLICK_ACTIONS, SOURCES
from prectr.stream.convert.convert import convert as convert_files
from prectr.stream.convert.draft.mapping_draft import SAMPLE_ROWS, draft_mapping
from prectr.stream.convert.outcome import ConversionReport

_SHOWN_EVENTS = 3


def convert(
    source: Annotated[
        str, typer.Argument(help="ubi, metarank, or a mapping file (.toml); --draft writes one.", show_default=False)
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="The files of one log: CSV, JSON lines, JSON arrays or Parquet, optionally gzip- or zstd-compressed."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The log to write: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.")
    ] = None,
    draft: Annotated[
        bool,
        typer.Option(
            "--draft",
            help="Propose a mapping from the first rows, write it to SOURCE, and show three example events.",
        ),
    ] = False,
    catalogue: Annotated[
        Path | None,
        typer.Option(help="With --draft: a file with one row for each item, with its title, price and so on."),
    ] = None,
    click_actions: Annotated[
        str, typer.Option(help="For ubi and metarank: the actions that are clicks, separated by commas.")
    ] = ",".join(CLICK_ACTIONS),
    json: Annotated[Path | None, typer.Option(help="Write the counts to this file as JSON.")] = None,
) -> None:
    """Convert a log of another system to events, sorted by event time, in bounded memory.

    UBI (OpenSearch User Behavior Insights 1.0 to 1.3) and Metarank's events are built in. Any other log needs a
    mapping: a TOML file whose values are JMESPath expressions over one row. --draft proposes one; docs/convert.md
    explains it. Rows that cannot be mapped are counted by reason, each with an example.

    Example: prectr convert ubi ubi_events.ndjson.gz --out log.jsonl.gz

    Example: prectr convert searches.toml searches.csv --catalogue items.csv --draft

    Example: prectr convert searches.toml searches.csv --out log.jsonl.gz
    """
    if draft:
        if out is not None or json is not None:
            raise UsageError("--draft converts only a sample: leave out --out and --json")
        _write_draft(source, inputs, catalogue)
        return
    if out is None:
        raise UsageError("name the log to write with --out")
    if catalogue is not None:
        raise UsageError("--catalogue belongs to --draft; a mapping names its catalogue itself")
    with progress_bar("convert", _size(inputs)) as bar:
        report = convert_files(
            source,
            inputs,
            out,
            click_actions=[each.strip() for each in click_actions.split(",")],
            on_progress=bar.update,
        )
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    _print_report(report)
    if report.pages == 0:
        raise PrectrError(f"no page was converted, so {out} has none; the reasons are above")
    typer.echo(f"{out}\nNext: prectr replay {out} --run-dir run")


def _size(inputs: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in inputs if path.is_file())


def _write_draft(source: str, inputs: Sequence[Path], catalogue: Path | None) -> None:
    path = Path(source)
    if path.suffix != ".toml" or source in SOURCES:
        raise UsageError(f"--draft writes a mapping file, whose name ends in .toml, not {source!r}")
    if path.exists():
        raise UsageError(f"{path} exists; name another file, or remove it")
    drafted = draft_mapping(inputs, catalogue)
    path.write_text(drafted.text, encoding="utf-8")
    typer.echo(drafted.text)
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample.jsonl"
        report = convert_files(source, inputs, sample, max_rows=SAMPLE_ROWS)
        typer.echo(f"The first {_SHOWN_EVENTS} events of a sample of {SAMPLE_ROWS} rows:")
        with sample.open("rb") as lines:
            for line in islice(lines, _SHOWN_EVENTS):
                typer.echo(printable(line.rstrip(b"\n")))
    _print_report(report)
    if report.pages == 0:
        raise PrectrError(f"{path} is written, but converts no page; correct it, then convert with it")
    names = " ".join(str(path) for path in inputs)
    todo = "check the lines that say LOOK, then" if drafted.unsure else "next"
    typer.echo(f"{path}: {todo}: prectr convert {path} {names} --out log.jsonl.gz")


def _print_report(report: ConversionReport) -> None:
    typer.echo(
        f"{report.rows:,} rows: {report.pages:,} pages with {report.impressions:,} impressions,"
        f" {report.clicks:,} clicks"
    )
    if report.clicks_on_page is not None:
        typer.echo(
            f"clicks on an item of their page: {report.clicks_on_page:,}; on another item: {report.clicks_off_page:,};"
            f" without a page: {report.clicks_without_page:,}"
        )
    if report.empty_pages:
        typer.echo(f"pages without items (left out): {report.empty_pages:,}")
    for reason, skipped in sorted(report.skipped.items(), key=lambda entry: -entry[1].count):
        line = f"{skipped.count:>9,} {reason}: {skipped.detail} ({skipped.place})"
        typer.echo(printable(line.encode(errors="replace")))
