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
        severity: `problem`: a replay would go wrong; `warning`: it would run, but with something lost.
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
        error: why the rest of the file cannot be read; None if it was read to its end.
        looks_like: what the content looks like if it is not one JSON event per line; None if it is.
    """

    path: str
    bytes: int
    lines: int = 0
    first_ts: int | None = None
    last_ts: int | None = None
    error: str | None = None
    looks_like: str | None = None

    def add_time(self, ts: int) -> None:
        """Extend the range of times by that of an event."""
        if self.first_ts is None or self.last_ts is None:
            self.first_ts = self.last_ts = ts
        elif ts < self.first_ts:
            self.first_ts = ts
        elif ts > self.last_ts:
            self.last_ts = ts


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
        ready: whether a replay would go right: no finding is a problem.
        sampled: share of the request ids on which clicks, duplicates and pace were computed; 1: all, exact.
        estimate: None if none was asked for or no page is valid.
    """

    ready: bool
    findings: list[Finding]
    files: list[FileSummary]
    lines: int
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
