"""The report's charts as inline SVG: no script, colours from the page's style sheet, figures in tooltips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ops.report.markup import Markup, join, tag

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 46


class Point(NamedTuple):
    """A measured point; `y` None leaves a gap. `spread`: half of the interval drawn around it."""

    x: float
    y: float | None
    tip: str
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """A line. `look` is a class of the style sheet (`s-0` to `s-7`, `s-whole`); `band` fills the points' spread."""

    name: str
    look: str
    points: Sequence[Point]
    band: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis from `low` to `high` with its labelled ticks and title (with the unit)."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    title: str

    def place(self, value: float, start: float, end: float) -> float:
        """Where `value` lies if the axis goes from `start` to `end`, in pixels; held within a little of them."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return start + min(max(share, -0.02), 1.02) * (end - start)


def _x(axis: Axis, value: float) -> float:
    return axis.place(value, LEFT, WIDTH - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return axis.place(value, HEIGHT - BOTTOM, TOP)


def _frame(x: Axis, y: Axis) -> Markup:
    """Grid lines, tick labels and axis titles."""
    parts = []
    for value, label in y.ticks:
        at = _y(y, value)
        parts.append(tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at))
        parts.append(tag("text", label, class_="tick end", x=LEFT - 8, y=at + 4))
    for value, label in x.ticks:
        at = _x(x, value)
        parts.append(tag("line", class_="axis", x1=at, x2=at, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM + 4))
        parts.append(tag("text", label, class_="tick mid", x=at, y=HEIGHT - BOTTOM + 18))
    base = HEIGHT - BOTTOM
    parts.append(tag("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base))
    parts.append(tag("text", x.title, class_="title mid", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8))
    parts.append(tag("text", y.title, class_="title", x=2, y=TOP - 1))
    return join(*parts)


def _svg(label: str, *parts: Markup) -> Markup:
    return tag("svg", *parts, viewBox=f"0 -10 {WIDTH} {HEIGHT + 10}", role="img", aria_label=label)


def _runs(points: Sequence[Point]) -> list[list[tuple[Point, float]]]:
    """The points with their y, cut where one is undefined."""
    runs: list[list[tuple[Point, float]]] = [[]]
    for point in points:
        if point.y is None:
            runs.append([])
        else:
            runs[-1].append((point, point.y))
    return [run for run in runs if run]


def _line(series: Series, x: Axis, y: Axis) -> Markup:
    parts = []
    for run in _runs(series.points):
        places = [(_x(x, point.x), _y(y, value)) for point, value in run]
        if series.band:
            edge = [(_x(x, point.x), _y(y, value + point.spread)) for point, value in run]
            edge += [(_x(x, point.x), _y(y, value - point.spread)) for point, value in reversed(run)]
            parts.append(tag("polygon", class_=f"band {series.look}", points=_coordinates(edge)))
        if len(run) > 1:
            parts.append(tag("polyline", class_=f"line {series.look}", points=_coordinates(places)))
        parts.extend(
            tag("circle", tag("title", point.tip), class_=f"dot {series.look}", cx=left, cy=top, r=2.5)
            for (point, _), (left, top) in zip(run, places, strict=True)
        )
    return join(*parts)


def _coordinates(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{left:.1f},{top:.1f}" for left, top in places)


def line_chart(label: str, series: Sequence[Series], x: Axis, y: Axis) -> Markup:
    """Lines over a common axis; the first is drawn on top."""
    return _svg(label, _frame(x, y), *(_line(one, x, y) for one in reversed(series)))


def legend(series: Sequence[Series]) -> Markup:
    """The names of the lines with a sample of each."""
    entries = [
        tag("li", tag("svg", _sample(one.look), class_="sample", viewBox="0 0 26 10", aria_hidden="true"), one.name)
        for one in series
    ]
    return tag("ul", *entries, class_="legend")


def _sample(look: str) -> Markup:
    line = tag("line", class_=f"line {look}", x1=1, x2=25, y1=5, y2=5)
    return join(line, tag("circle", class_=f"dot {look}", cx=13, cy=5, r=2.5))


def scatter_on_diagonal(label: str, points: Sequence[Point], both: Axis, x_title: str, y_title: str) -> Markup:
    """Points with their intervals against the line of equality; both axes are the same."""
    x = Axis(both.low, both.high, both.ticks, x_title)
    y = Axis(both.low, both.high, both.ticks, y_title)
    ends = {"x1": _x(x, x.low), "y1": _y(y, y.low), "x2": _x(x, x.high), "y2": _y(y, y.high)}
    parts = [_frame(x, y), tag("line", class_="equal", **ends)]
    drawn = [(point, point.y) for point in points if point.y is not None]
    trail = [(_x(x, point.x), _y(y, value)) for point, value in drawn]
    parts.append(tag("polyline", class_="line s-0", points=_coordinates(trail)))
    for point, value in drawn:
        at = _x(x, point.x)
        low, high = _y(y, value - point.spread), _y(y, value + point.spread)
        parts.append(tag("line", class_="whisker s-0", x1=at, x2=at, y1=low, y2=high))
        parts.append(tag("circle", tag("title", point.tip), class_="dot s-0", cx=at, cy=_y(y, value), r=4))
    return _svg(label, *parts)


def bar(share: float, look: str = "s-0") -> Markup:
    """A horizontal bar in a table cell, `share` of its width; what is above nothing is at least visible."""
    width = min(max(100.0 * share, 0.6 if share > 0 else 0.0), 100.0)
    return tag("span", tag("span", class_=f"fill {look}", style=f"width:{width:.2f}%"), class_="bar")
