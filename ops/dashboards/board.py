"""What a dashboard is, in plain words: rows of panels, each with its queries; grafana.py writes them for Grafana.

Panel ids are written out, never counted: alerts link to them, and a link must not move when a panel is added.
"""

from typing import Final, Literal, TypeAlias

import msgspec

Unit: TypeAlias = Literal["short", "none", "s", "bytes", "percentunit", "reqps", "cps", "recps", "dateTimeAsIso"]
"""Grafana's name of a unit: `none` a bare figure, `percentunit` a share from 0 to 1, `recps` records a second."""
Kind: TypeAlias = Literal["lines", "stack", "stat", "table"]
Threshold: TypeAlias = tuple[float | None, Literal["green", "orange", "red"]]
"""A colour, and the figure that it begins at; None: the lowest."""

MODEL_VARIABLE: Final = "model"
"""The variable by which a dashboard can be held to some of the models."""


class Query(msgspec.Struct, frozen=True):
    """A PromQL expression. legend: how each series is called, with labels as in {{partition}}."""

    expr: str
    legend: str = ""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """A panel. id: unique on its dashboard, for good. text: what it shows, and what to think of it.

    zones: colours of a stat, or the limits drawn into lines. width, height: of a grid of 24 columns; a unit of height
    is 30 px. decimals: as Grafana sees fit where None. low, high: of the axis.
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
    """Panels below a heading."""

    title: str
    panels: tuple[Panel, ...]


class Dashboard(msgspec.Struct, frozen=True, kw_only=True):
    """A dashboard. name: of its file, and of its uid behind `prectr-`. since: what it shows first, such as now-6h.

    by_model: whether it has the variable `model`.
    """

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    time_from: str = "now-6h"
    has_model_variable: bool = True

    @property
    def uid(self) -> str:
        """What links name it by."""
        return f"prectr-{self.name}"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of its panels, as they stand."""
        return tuple(panel for row in self.rows for panel in row.panels)
