"""By kind of fault: the metric, the words in the logs and the finding of `prectr doctor` that tell of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

UP: Final = "up"
"""Whether a process can be scraped; Prometheus makes this metric itself."""


@dataclass(frozen=True, slots=True)
class MetricReport:
    """A metric that shows the fault in a process.

    shows: `down` if a process that could be scraped no longer can, or process `process` never could.
    """

    name: str
    shows: Literal["down", "above zero"]
    process: str = ""


@dataclass(frozen=True, slots=True)
class FindingReport:
    """A finding of `prectr doctor`, by a part of its name. observed: a regular expression."""

    name: str
    severity: Literal["warning", "error"]
    observed: str


@dataclass(frozen=True, slots=True)
class ExpectedReport:
    """What must be said of a fault. log: a regular expression, found in what any process writes after the fault.

    heals: why an operator has nothing to do, required where one of the three is None.
    """

    metric: MetricReport | None
    log: str | None
    finding: FindingReport | None
    heals: str = ""

    def __post_init__(self) -> None:
        if None in (self.metric, self.log, self.finding) and not self.heals:
            raise ValueError("nothing is reported of a fault that does not heal by itself")


_DOWN: Final = MetricReport(UP, "down")
_UNREACHABLE: Final = MetricReport("prectr_broker_unreachable_seconds", "above zero")
_SUPERVISED: Final = "its supervisor starts it again, and it goes on where it was"
_STREAM_RESTARTED: Final = ExpectedReport(_DOWN, r"open at offset \d+", None, _SUPERVISED)
_TRAINER_RESTARTED: Final = ExpectedReport(_DOWN, "resumes from checkpoint|there is no checkpoint", None, _SUPERVISED)

EXPECTED_REPORTS: Final[Mapping[str, ExpectedReport]] = {
    "kill-stream": _STREAM_RESTARTED,
    "kill-stream-at-point": _STREAM_RESTARTED,
    "kill-in-rebalance": _STREAM_RESTARTED,
    "kill-trainer": _TRAINER_RESTARTED,
    "kill-in-checkpoint": _TRAINER_RESTARTED,
    "kill-broker": ExpectedReport(
        _UNREACHABLE,
        "opening the tasks again from the committed offsets|no answer from Kafka",
        FindingReport("broker", "error", "no answer from Kafka"),
    ),
    "zombie": ExpectedReport(_DOWN, r"open at offset \d+", None, "the other processes take over its tasks"),
    "lose-state": ExpectedReport(_DOWN, r"open at offset \d+", None, "the state is restored, or rebuilt from the log"),
    "third-process": ExpectedReport(None, None, None, "no fault: processes may come and go"),
    "disk-full": ExpectedReport(
        _DOWN,
        "No space left|could not be written",
        FindingReport("state folder", "error", r": 0\.0 GiB free"),
    ),
    "truncated-snapshot": ExpectedReport(
        MetricReport("prectr_snapshots_corrupt_total", "above zero"),
        r"snapshot .* is corrupt: .*: trying the previous one",
        None,
        "the snapshot before is used, and the next one replaces it",
    ),
    "kill-in-snapshot": _STREAM_RESTARTED,
    "kill-in-restore": _STREAM_RESTARTED,
    "broker-away-at-start": ExpectedReport(
        _UNREACHABLE, "no answer from Kafka, retrying", FindingReport("broker", "error", "no answer from Kafka")
    ),
    "rights-taken": ExpectedReport(_DOWN, "an ACL must allow this client", FindingReport("rights", "warning", "lacks")),
    "wrong-settings": ExpectedReport(
        MetricReport(UP, "down", "3"),
        r"has committed with other settings|attribution_window is 600",
        FindingReport("settings", "warning", "other settings"),
    ),
    "non-finite-gradient": ExpectedReport(
        MetricReport("prectr_loss_not_finite", "above zero"),
        "gradient .* inf",
        FindingReport("trainer", "error", "gradient"),
    ),
    "slow-clients": ExpectedReport(None, None, None, "the oldest of the waiting connections give way to new ones"),
    "topic-recreated": ExpectedReport(
        _DOWN, "search-events was deleted and recreated", FindingReport("state ", "error", "deleted and recreated")
    ),
    "partitions-added": ExpectedReport(
        _DOWN, r"search-events has \d+ partitions, and had", FindingReport("partitions", "error", "search-events has")
    ),
    "offsets-reset": ExpectedReport(
        _DOWN, "was not made by this program", FindingReport("commits of", "error", "was not made by this program")
    ),
    "forged-frame": ExpectedReport(
        _DOWN,
        r"(joined-pages|training-examples) partition \d+ offset \d+: .*frame",
        FindingReport("next record", "error", r"(joined-pages|training-examples) partition \d+ offset \d+: .*frame"),
    ),
}
"""Of every kind."""
