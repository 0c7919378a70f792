"""What a log would do in a replay, told before any: one pass, bounded memory, no state."""

from prectr.stream.check.report import CheckReport, Finding
from prectr.stream.check.survey import survey_log

__all__ = ["CheckReport", "Finding", "survey_log"]
