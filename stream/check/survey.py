"""One pass over a log: every line is decoded once and shown to each part of the check."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from os import PathLike
from typing import Final

import numpy as np

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
from prectr.stream.events.contract import Click, Event, InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.events.query_key import normalise_query
from prectr.stream.readers import LogFile, LogPart, Order, Run, open_log, read_in_order
from prectr.stream.replay.disorder import Disorder

BATCH_LINES: Final = 4_096
_MAX_ACTIONS: Final = 100
_OTHER_ACTIONS: Final = "others"


class Survey:
    """What has been seen of a log so far."""

    def __init__(self, config: PipelineConfig, files: Sequence[FileSummary]) -> None:
        """Begin. files: those of the log; they are filled in."""
        self._config = config
        self._files = files
        self._file_disorder = [Disorder() for _ in files]
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
        self._click_actions = frozenset(config.click_actions)
        self._other_actions: dict[str, int] = {}

    def add_file(self, ignored_columns: Sequence[str]) -> None:
        """Take in which columns of a file are not read."""
        self._fields.add_file(ignored_columns)

    def add(self, lines: Sequence[bytes], runs: Iterable[Run]) -> None:
        """Take in the next lines, in the order in which a replay reads them. runs: where they all come from."""
        events = decode_lines(lines)
        partitions = partitions_of([event.user_id for event in events], self._config.partitions)
        rows = zip(lines, events, partitions, strict=True)
        limits = (round(self._config.allowed_lateness * 1000), round(self._config.max_clock_skew * 1000))
        for run in runs:
            file = self._files[run.file]
            file.lines = run.first_line + run.lines
            times: list[int] = []
            for number, (line, event, partition) in enumerate(islice(rows, run.lines), run.first_line + 1):
                self._lines += 1
                if isinstance(event, InvalidEvent):
                    self._invalid.add(event, line, f"{file.path}:{number}")
                    self._units.add_line(line)
                    continue
                times.append(event.ts)
                self._partitions[partition] += 1
                self._fields.add(line)
                self._add_event(event, self._order.observe(event, partition))
            if times:
                file.add_times(min(times), max(times))
                array = np.array(times, dtype=np.int64)
                self._file_disorder[run.file].add(array, *limits)
                self._order.add_times(array)

    def report(self, batch_pages: int, batch_span: float, read_error: str | None = None) -> CheckReport:
        """Summarise the whole log. batch_span: seconds. read_error: why the rest of it cannot be read."""
        config, sample = self._config, self._sample
        for file, disorder in zip(self._files, self._file_disorder, strict=True):
            file.behind = disorder.behind
        pages = sample.pages()
        report = CheckReport(
            ready=True,
            findings=[],
            files=list(self._files),
            lines=self._lines,
            read_error=read_error,
            validity=validity_report(
                self._invalid,
                self._units,
                pages=self._pages,
                empty_pages=self._empty_pages,
                clicks=self._clicks,
                other_actions=dict(sorted(self._other_actions.items(), key=lambda entry: -entry[1])),
            ),
            order=self._order.report([file.times for file in self._files if file.times is not None]),
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
        self._visitors.add(event.user_id)
        if isinstance(event, Click):
            if event.action in self._click_actions:
                self._clicks += 1
                self._sample.add_click(event, watermark, self._lines)
            else:
                self._add_other_action(event.action)
            return
        self._pages += 1
        if not event.items:
            self._empty_pages += 1
            return
        self._queries.add(normalise_query(event.query))
        self._items.add(event.items)
        self._sample.add_page(event, watermark, self._lines)

    def _add_other_action(self, action: str) -> None:
        actions = self._other_actions
        name = action if action in actions or len(actions) < _MAX_ACTIONS else _OTHER_ACTIONS
        actions[name] = actions.get(name, 0) + 1


def survey_log(
    paths: Sequence[str | PathLike[str]],
    config: PipelineConfig,
    *,
    batch_pages: int,
    batch_span: float,
    order: Order = "time",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CheckReport:
    """Validate a log by reading it once. Memory is bounded; a long log is partly sampled.

    Args:
        paths: files, folders or patterns, as for a replay.
        config: settings of the stages.
        batch_pages, batch_span: settings of the trainer; batch_span in seconds.
        order: of several files, as in a replay.
        progress: called with the bytes read and their total.

    Raises:
        UsageError, InputError: a file is missing or of another type. A file that is corrupt is a finding.
    """
    files = open_log(paths)
    summaries = [_summary(file) for file in files]
    survey = Survey(config, summaries)
    for file in files:
        survey.add_file(file.ignored_columns())
    total = sum(file.identity.size for file in files)
    parts = [LogPart(file, index) for index, file in enumerate(files)]
    read_error = None
    try:
        for batch in read_in_order(parts, BATCH_LINES, order=order):
            survey.add(batch.lines, batch.runs)
            progress(sum(file.bytes_read for file in files), total)
    except InputError as error:
        is_told = any(summary.other_content == str(error) for summary in summaries)
        read_error = None if is_told else str(error)
    return survey.report(batch_pages, batch_span, read_error)


def _summary(file: LogFile) -> FileSummary:
    summary = FileSummary(str(file.path), file.identity.size)
    try:
        file.check_content()
    except InputError as error:
        summary.other_content = str(error)
    return summary
