"""Dashboards as code; `python -m prectr.ops.dashboards` writes the JSON that Grafana reads."""

from typing import Final

from prectr.ops.dashboards.board import Dashboard
from prectr.ops.dashboards.overview import OVERVIEW
from prectr.ops.dashboards.pipeline import PIPELINE
from prectr.ops.dashboards.quality import QUALITY
from prectr.ops.dashboards.state import STATE
from prectr.ops.dashboards.training import TRAINING

DASHBOARDS: Final[tuple[Dashboard, ...]] = (OVERVIEW, QUALITY, PIPELINE, TRAINING, STATE)
"""All dashboards, in reading order."""
