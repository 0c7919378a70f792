"""The report of a run: `report.json` for programs and `report.html` for people."""

from prectr.ops.report.schema import ModelReport, QueryPreference, Report, RunSummary, build_report, model_report
from prectr.ops.report.writer import write_report

__all__ = ["ModelReport", "QueryPreference", "Report", "RunSummary", "build_report", "model_report", "write_report"]
