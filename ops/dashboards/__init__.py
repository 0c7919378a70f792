"""Dashboards as code: what they show is said here, and `python -m ops.dashboards` writes it as Grafana reads it."""

from typing import Final

from ops.dashboards.board import Board
from ops.dashboards.overview import OVERVIEW
from ops.dashboards.pipeline import PIPELINE
from ops.dashboards.quality import QUALITY
from ops.dashboards.state import STATE
from ops.dashboards.training import TRAINING

BOARDS: Final[tuple[Board, ...]] = (OVERVIEW, QUALITY, PIPELINE, TRAINING, STATE)
"""In the order in which they are looked at."""
