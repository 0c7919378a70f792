"""What a check says of a log; `prectr check --json` writes it as it is. Times are ms since 1970, shares 0 to 1."""

import msgspec

from prectr.stream.check.click_windows import ClickReport
from prectr.stream.check.fields import FieldReport
from prectr.stream.check.items import ItemReport
from prectr.stream.check.key_counts import KeyReport
from prectr.stream.check.pace import PaceReport
from prectr.stream.check.time_order import OrderReport
from prectr.stream.check.validity import ValidityReport


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as it should be.

    Attributes:
        severity: `problem`: the log is not ready to replay; `warning`: a replay runs, but loses something.
        subject: which part of the check it is about.
        message: what was found, in one sentence.
        advice: what to do about it.
    """

    severity: str
    subject: str
    message: str
    advice: str


class FileSummary(msgspec.Struct):
    """One file of the log.

    Attributes:
        lines: lines or rows read, valid or not.
        first_ts, last_ts: earliest and latest time of its valid events; None without any.
        behind: its valid events that step back within the file by more than `allowed_lateness`.
        other_content: what it holds, and what to do, if that is obviously not one JSON event per line; else None.
    """

    path: str
    bytes: int
    lines: int = 0
    first_ts: int | None = None
    last_ts: int | None = None
    behind: int = 0
    other_content: str | None = None

    @property
    def times(self) -> tuple[int, int] | None:
        """The earliest and the latest time."""
        return None if self.first_ts is None or self.last_ts is None else (self.first_ts, self.last_ts)

    def add_times(self, first: int, last: int) -> None:
        """Extend the range of times."""
        known_first, known_last = self.times or (first, last)
        self.first_ts, self.last_ts = min(first, known_first), max(last, known_last)


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """How long a replay will take, from a sample of the log measured on this machine just now, in seconds.

    Attributes:
        sample_pages, sample_events: size of the sample: the beginning of the log.
        stages: both stages, without a model.
        models: training of each model, in addition to the stages.
    """

    sample_pages: int
    sample_events: int
    stages: float
    models: dict[str, float]


class CheckReport(msgspec.Struct, kw_only=True):
    """Everything that a check found.

    Attributes:
        ready: whether the log is ready to replay: no finding is a problem.
        read_error: why the rest of the log cannot be read; None if it was read to its end.
        sampled: share of the request ids on which clicks, duplicates and pace were computed; 1: all, exact.
        estimate: None if none was asked for or no page is valid.
    """

    ready: bool
    findings: list[Finding]
    files: list[FileSummary]
    lines: int
    read_error: str | None
    validity: ValidityReport
    order: OrderReport
    clicks: ClickReport
    visitors: KeyReport
    queries: KeyReport
    partitions: list[int]
    items: ItemReport
    fields: FieldReport
    pace: PaceReport
    sampled: float
    estimate: Estimate | None = None
