"""Charts as inline SVG: no script, colours from the style sheet of the page, numbers in tooltips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prectr.ops.report.markup import Markup, join, tag

NARROW, WIDE = 560, 1120
"""Widths of a chart of half the page and of the full page."""
HEIGHT = 300
LEFT, RIGHT, TOP, BOTTOM = 54, 26, 24, 46
MAX_VISIBLE_DOTS = 12
"""Lines with more points show dots on hover only."""


class Point(NamedTuple):
    """A measured point. y: None leaves a gap. spread: half of the interval drawn around it."""

    x: float
    y: float | None
    tip: str
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """A line. css_class: `s-0` to `s-7` or `s-whole`. band: whether to draw the spread of the points."""

    name: str
    css_class: str
    points: Sequence[Point]
    band: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis with labelled ticks and a title with the unit."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    title: str

    def scale(self, value: float, start: float, end: float) -> float:
        """Map `value` to pixels between `start` and `end`, clamped with a small margin."""
        fraction = (value - self.low) / ((self.high - self.low) or 1.0)
        return start + min(max(fraction, -0.02), 1.02) * (end - start)


@dataclass(frozen=True, slots=True)
class Plane:
    """Two axes, and the width of the chart in pixels."""

    x: Axis
    y: Axis
    width: int = NARROW

    def left(self, value: float) -> float:
        """Pixels from the left for a value of x."""
        return self.x.scale(value, LEFT, self.width - RIGHT)

    def top(self, value: float) -> float:
        """Pixels from the top for a value of y."""
        return self.y.scale(value, HEIGHT - BOTTOM, TOP)


def _frame(plane: Plane) -> Markup:
    """Grid lines, tick labels and axis titles."""
    x, y, right = plane.x, plane.y, plane.width - RIGHT
    parts = []
    for value, label in y.ticks:
        at = plane.top(value)
        parts.append(tag("line", class_="grid", x1=LEFT, x2=right, y1=at, y2=at))
        parts.append(tag("text", label, class_="tick end", x=LEFT - 8, y=at + 4))
    for value, label in x.ticks:
        at = plane.left(value)
        parts.append(tag("line", class_="axis", x1=at, x2=at, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM + 4))
        parts.append(tag("text", label, class_="tick mid", x=at, y=HEIGHT - BOTTOM + 18))
    base = HEIGHT - BOTTOM
    parts.append(tag("line", class_="axis", x1=LEFT, x2=right, y1=base, y2=base))
    parts.append(tag("text", x.title, class_="title mid", x=(LEFT + right) / 2, y=HEIGHT - 8))
    parts.append(tag("text", y.title, class_="title", x=2, y=TOP - 14))
    return join(*parts)


def _svg(label: str, width: int, *parts: Markup) -> Markup:
    return tag("svg", *parts, viewBox=f"0 0 {width} {HEIGHT}", role="img", aria_label=label)


def _runs(points: Sequence[Point]) -> list[list[tuple[Point, float]]]:
    """The points with their y, cut where one is undefined."""
    runs: list[list[tuple[Point, float]]] = [[]]
    for point in points:
        if point.y is None:
            runs.append([])
        else:
            runs[-1].append((point, point.y))
    return [run for run in runs if run]


def _line(series: Series, plane: Plane) -> Markup:
    parts = []
    dot = f"dot quiet {series.css_class}" if len(series.points) > MAX_VISIBLE_DOTS else f"dot {series.css_class}"
    for run in _runs(series.points):
        pixels = [(plane.left(point.x), plane.top(value)) for point, value in run]
        if series.band:
            edge = [(plane.left(point.x), plane.top(value + point.spread)) for point, value in run]
            edge += [(plane.left(point.x), plane.top(value - point.spread)) for point, value in reversed(run)]
            parts.append(tag("polygon", class_=f"band {series.css_class}", points=_coordinates(edge)))
        if len(run) > 1:
            parts.append(tag("polyline", class_=f"line {series.css_class}", points=_coordinates(pixels)))
        parts.extend(
            tag("circle", tag("title", point.tip), class_=dot, cx=left, cy=top, r=3)
            for (point, _), (left, top) in zip(run, pixels, strict=True)
        )
    return join(*parts)


def _coordinates(pixels: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{left:.1f},{top:.1f}" for left, top in pixels)


def line_chart(label: str, series: Sequence[Series], plane: Plane) -> Markup:
    """A line chart; the first series is drawn on top."""
    return _svg(label, plane.width, _frame(plane), *(_line(one, plane) for one in reversed(series)))


def legend(series: Sequence[Series]) -> Markup:
    """A legend with a sample of each line."""
    entries = [
        tag(
            "li", tag("svg", _sample(one.css_class), class_="sample", viewBox="0 0 26 10", aria_hidden="true"), one.name
        )
        for one in series
    ]
    return tag("ul", *entries, class_="legend")


def _sample(css_class: str) -> Markup:
    return tag("line", class_=f"line {css_class}", x1=1, x2=25, y1=5, y2=5)


def scatter_on_diagonal(label: str, points: Sequence[Point], axis: Axis, x_title: str, y_title: str) -> Markup:
    """Points with intervals, and the diagonal; both axes are the same."""
    plane = Plane(
        Axis(axis.low, axis.high, axis.ticks, x_title),
        Axis(axis.low, axis.high, axis.ticks, y_title),
    )
    low, high = axis.low, axis.high
    ends = {"x1": plane.left(low), "y1": plane.top(low), "x2": plane.left(high), "y2": plane.top(high)}
    parts = [_frame(plane), tag("line", class_="equal", **ends)]
    drawn = [(point, point.y) for point in points if point.y is not None]
    trail = [(plane.left(point.x), plane.top(value)) for point, value in drawn]
    parts.append(tag("polyline", class_="line s-0", points=_coordinates(trail)))
    for point, value in drawn:
        at = plane.left(point.x)
        ends = {"y1": plane.top(value - point.spread), "y2": plane.top(value + point.spread)}
        parts.append(tag("line", class_="whisker s-0", x1=at, x2=at, **ends))
        parts.append(tag("circle", tag("title", point.tip), class_="dot s-0", cx=at, cy=plane.top(value), r=4))
    return _svg(label, plane.width, *parts)


def bar(fraction: float, css_class: str = "s-0") -> Markup:
    """A horizontal bar in a table cell. fraction: of the width; values above 0 are at least visible."""
    width = min(max(100.0 * fraction, 0.6 if fraction > 0 else 0.0), 100.0)
    return tag("span", tag("span", class_=f"fill {css_class}", style=f"width:{width:.2f}%"), class_="bar")
