"""Checks hand-made lines without a file."""

from collections.abc import Sequence
from typing import Any, Final

from prectr.stream.check.report import CheckReport, FileSummary
from prectr.stream.check.survey import Survey
from prectr.stream.config import PipelineConfig
from prectr.stream.readers import Run
from tests.kit.stages.events import SECOND, T, page

CROWD: Final = [page(f"crowd{number}", f"crowd{number % 40}", T - 60 * SECOND) for number in range(80)]
"""Pages of many users before T, after which the event clock of one partition knows the time."""


def check_lines(
    lines: Sequence[bytes], *, batch_pages: int = 16, batch_span: float = 60.0, **config: Any
) -> CheckReport:
    """Check lines as one file `log.jsonl`, in one partition unless `config` says otherwise."""
    file = FileSummary("log.jsonl", sum(map(len, lines)))
    survey = Survey(PipelineConfig(**{"partitions": 1} | config), [file])
    for start in range(0, len(lines), 7):
        part = lines[start : start + 7]
        survey.add(part, [Run(0, start, len(part), None)])
    return survey.report(batch_pages, batch_span)


def found(report: CheckReport) -> dict[str, str]:
    """The severity of each finding by its subject; the worst one first found."""
    severities: dict[str, str] = {}
    for finding in report.findings:
        severities.setdefault(finding.subject, finding.severity)
    return severities
