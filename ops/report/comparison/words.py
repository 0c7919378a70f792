"""How metrics and their differences are written."""

from typing import Final

from prectr.model.quality.paired import Interval
from prectr.ops.report.numbers import DASH

METRIC_NAMES: Final = {"auc": "AUC", "gauc": "page GAUC", "log_loss": "log loss"}
"""Names of the metrics for people."""


def signed(value: float | None) -> str:
    """A difference with its sign; a dash if undefined."""
    return DASH if value is None else f"{value:+.4f}"


def interval_text(interval: Interval | None) -> str:
    """An interval of a difference; a dash if undefined."""
    return DASH if interval is None else f"{interval.low:+.4f} … {interval.high:+.4f}"
