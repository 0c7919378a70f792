"""One pass over a log: every line is decoded once and shown to each part of the check."""

from collections.abc import Callable, Sequence
from itertools import islice
from os import PathLike
from typing import Final, NamedTuple

from prectr.state.errors import InputError
from prectr.stream.check.click_windows import click_report
from prectr.stream.check.fields import FieldSample
from prectr.stream.check.items import PageItems
from prectr.stream.check.key_counts import KeyCounts
from prectr.stream.check.key_sample import KeySample
from prectr.stream.check.pace import pace_report
from prectr.stream.check.report import CheckReport, FileSummary
from prectr.stream.check.time_order import TimeOrder
from prectr.stream.check.time_units import TimeUnits
from prectr.stream.check.validity import InvalidLines, validity_report
from prectr.stream.check.verdict import findings_of
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Event, InvalidEvent, ResultPage
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.events.query_key import normalise_query
from prectr.stream.readers import LogFile, open_log

BATCH_LINES: Final = 4_096


class Run(NamedTuple):
    """Consecutive lines of one file. first_line: number of lines before them."""

    file: FileSummary
    first_line: int
    lines: int


class Survey:
    """What has been seen of a log so far."""

    def __init__(self, config: PipelineConfig) -> None:
        self._config = config
        self._order = TimeOrder(config)
        self._invalid = InvalidLines()
        self._units = TimeUnits()
        self._sample = KeySample()
        self._visitors = KeyCounts()
        self._queries = KeyCounts()
        self._partitions = [0] * config.partitions
        self._items = PageItems()
        self._fields = FieldSample()
        self._lines = self._pages = self._empty_pages = self._clicks = 0

    def add(self, lines: Sequence[bytes], runs: Sequence[Run]) -> None:
        """Take in the next lines, in the order in which a replay reads them. runs: where they all come from."""
        events = decode_lines(lines)
        partitions = partitions_of([event.user_id for event in events], self._config.partitions)
        rows = zip(lines, events, partitions, strict=True)
        for run in runs:
            file = run.file
            file.lines = run.first_line + run.lines
            for number, (line, event, partition) in enumerate(islice(rows, run.lines), run.first_line + 1):
                self._lines += 1
                if isinstance(event, InvalidEvent):
                    self._invalid.add(event, line, f"{file.path}:{number}")
                    self._units.add_line(line)
                    continue
                file.add_time(event.ts)
                self._partitions[partition] += 1
                self._fields.add(line)
                self._add_event(event, self._order.observe(event, partition))

    def report(self, files: list[FileSummary], batch_pages: int, batch_span: float) -> CheckReport:
        """Summarise the whole log. batch_span: seconds."""
        config, sample = self._config, self._sample
        ranges = [(each.first_ts, each.last_ts) for each in files if each.first_ts is not None]
        pages = sample.pages()
        report = CheckReport(
            ready=True,
            findings=[],
            files=files,
            lines=self._lines,
            validity=validity_report(
                self._invalid, self._units, pages=self._pages, empty_pages=self._empty_pages, clicks=self._clicks
            ),
            order=self._order.report(ranges, self._pages + self._clicks),  # type: ignore[arg-type]
            clicks=click_report(
                pages,
                sample.clicks(),
                window=config.attribution_window,
                allowed_lateness=config.allowed_lateness,
                is_whole=sample.fraction == 1,
            ),
            visitors=self._visitors.report(),
            queries=self._queries.report(),
            partitions=self._partitions,
            items=self._items.report(),
            fields=self._fields.report(),
            pace=pace_report(pages.ts, sample.fraction, batch_pages, batch_span),
            sampled=sample.fraction,
        )
        report.findings = findings_of(report, config)
        report.ready = all(finding.severity != "problem" for finding in report.findings)
        return report

    def _add_event(self, event: Event, watermark: int) -> None:
        self._units.add(event.ts)
        self._visitors.add(event.user_id)
        if not isinstance(event, ResultPage):
            self._clicks += 1
            self._sample.add_click(event, watermark, self._lines)
            return
        self._pages += 1
        if not event.items:
            self._empty_pages += 1
            return
        self._queries.add(normalise_query(event.query))
        self._items.add(event.items)
        self._sample.add_page(event, watermark, self._lines)


def survey_log(
    paths: Sequence[str | PathLike[str]],
    config: PipelineConfig,
    *,
    batch_pages: int,
    batch_span: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CheckReport:
    """Read a log once and say what a replay would meet. Memory is bounded; a long log is partly sampled.

    Args:
        paths: files, folders or patterns, as for a replay.
        config: settings of the stages.
        batch_pages, batch_span: settings of the trainer; batch_span in seconds.
        progress: called with the bytes read and their total.

    Raises:
        UsageError, InputError: a file is missing or of another type. A file that is corrupt is a finding.
    """
    log_files = open_log(paths)
    survey = Survey(config)
    total = sum(file.identity.size for file in log_files)
    done = 0
    summaries = []
    for file in log_files:
        summary = FileSummary(str(file.path), file.identity.size)
        summaries.append(summary)
        _read(file, summary, survey, lambda read, before=done: progress(before + read, total))  # type: ignore[misc]
        done += file.identity.size
    return survey.report(summaries, batch_pages, batch_span)


def _read(file: LogFile, summary: FileSummary, survey: Survey, progress: Callable[[int], None]) -> None:
    try:
        for batch in file.batches(batch_lines=BATCH_LINES):
            survey.add(batch.lines, [Run(summary, batch.first_line, len(batch.lines))])
            progress(file.bytes_read)
    except InputError as error:
        summary.error = str(error)
