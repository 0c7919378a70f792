"""The baselines of a run, for its report."""

from prectr.model.quality.baselines import LOGGED_ORDER, Baselines
from prectr.ops.report.schema import BaselineReport


def baseline_reports(baselines: Baselines) -> list[BaselineReport]:
    """Summarise the baselines; the scores of the logged order are no probabilities."""
    reports = []
    for name, quality in baselines.quality.items():
        total = quality.segments()["all"]
        is_probability = name != LOGGED_ORDER
        reports.append(
            BaselineReport(
                model=name,
                auc=total.auc,
                gauc=total.gauc,
                log_loss=total.log_loss if is_probability else None,
                calibration=total.calibration if is_probability else None,
            )
        )
    return reports
