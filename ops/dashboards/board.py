"""The parts of a dashboard: rows of panels with queries. grafana.py writes them as Grafana JSON.

Panel ids are explicit, not counted: alerts link to them, and a link must not change when a panel is added.
"""

from typing import Final, Literal, TypeAlias

import msgspec

Unit: TypeAlias = Literal["short", "none", "s", "bytes", "percentunit", "reqps", "cps", "recps", "dateTimeAsIso"]
"""Grafana's unit names: `none` is a plain number, `percentunit` a share from 0 to 1, `recps` records per second."""
Kind: TypeAlias = Literal["lines", "stack", "stat", "table"]
Threshold: TypeAlias = tuple[float | None, Literal["green", "orange", "red"]]
"""A lower bound (None: no bound) and the colour from there on."""

MODEL_VARIABLE: Final = "model"
"""The dashboard variable that selects models."""


class Query(msgspec.Struct, frozen=True):
    """A PromQL expression. legend: name of each series, with labels as in {{partition}}."""

    expr: str
    legend: str = ""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """A panel.

    id: unique on its dashboard, permanent. description: what it shows and how to read it. thresholds: colours of a
    stat, or limits drawn into a line chart. width: in columns of a grid of 24. height: in units of 30 px. decimals:
    None lets Grafana choose. axis_min, axis_max: bounds of the y axis.
    """

    id: int
    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Kind = "lines"
    thresholds: tuple[Threshold, ...] = ()
    width: int = 8
    height: int = 8
    decimals: int | None = None
    axis_min: float | None = None
    axis_max: float | None = None


class Row(msgspec.Struct, frozen=True):
    """A heading with panels."""

    title: str
    panels: tuple[Panel, ...]


class Dashboard(msgspec.Struct, frozen=True, kw_only=True):
    """A dashboard.

    name: of its file; its uid is `prectr-` followed by it. time_from: start of the initial time range, such as now-6h.
    has_model_variable: whether models can be selected.
    """

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    time_from: str = "now-6h"
    has_model_variable: bool = True

    @property
    def uid(self) -> str:
        """Identifies the dashboard in links."""
        return f"prectr-{self.name}"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)
