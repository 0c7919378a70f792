"""Plots of the results of `bench.quality`, as SVG files that are byte-identical for the same results."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.quality.rows import Row
from bench.world.drift import BINS_AFTER, MODES, RECOVERY_BINS, DriftRun, pool_bins
from bench.world.learning_curve import CurvePoint

_REFERENCE_ROWS: Final = ("position alone", "position × level", "reference learner", "oracle")
_THOUSANDS: Final = FuncFormatter(lambda value, _: f"{value:,.0f}")


def plot_models(rows: Sequence[Row], path: Path) -> None:
    """Plot the AUC of each variant: one dot per seed, mean and standard deviation; rows of one track."""
    names = list(dict.fromkeys(row.name for row in rows if row.name != "oracle"))[::-1]
    with _plot_style():
        figure = Figure(figsize=(7.5, 0.6 + 0.34 * len(names)), layout="constrained")
        axes = figure.subplots()
        for y, name in enumerate(names):
            values = [row.auc_expected for row in rows if row.name == name]
            colour = "0.55" if name in _REFERENCE_ROWS else "C0"
            axes.plot(values, [y] * len(values), "o", color=colour, alpha=0.35, markersize=4)
            spread = stdev(values) if len(values) > 1 else 0.0
            axes.errorbar(mean(values), y, xerr=spread, fmt="o", color=colour, markersize=6)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("AUC, expected labels, second half")
        _save(figure, path)


def plot_curve(points: Sequence[CurvePoint], path: Path) -> None:
    """Plot AUC and AUC on never-shown pairs over the size of the log; points of one track."""
    names = [
        name for name in dict.fromkeys(point.row.name for point in points) if name not in {*_REFERENCE_ROWS, "oracle"}
    ]
    with _plot_style():
        figure = Figure(figsize=(10, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name in [*names, "reference learner"]:
            own = sorted((point.pages, point.row) for point in points if point.row.name == name)
            style: dict[str, Any] = {"color": "0.55", "linestyle": "--"} if name in _REFERENCE_ROWS else {"marker": "o"}
            pages = [number for number, _ in own]
            left.plot(pages, [row.auc_expected for _, row in own], label=name, **style)
            if name in names:
                right.plot(pages, [row.auc_never_shown for _, row in own], label=name, **style)
        for axes, title in ((left, "AUC, expected labels"), (right, "AUC, never shown")):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(_THOUSANDS)
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xticks(sorted({point.pages for point in points}))
            axes.set_xlabel("pages of the log")
            axes.set_ylabel(title)
        figure.legend(*left.get_legend_handles_labels(), loc="outside right upper")
        _save(figure, path)


def plot_drift(runs: Sequence[DriftRun], path: Path) -> None:
    """Plot excess expected log loss around the change, one panel per model, for changed and unchanged queries."""
    names = list(dict.fromkeys(run.name for run in runs))
    with _plot_style():
        figure = Figure(figsize=(1.8 + 4.0 * len(names), 3.4), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
        width = runs[0].bin_pages
        after = (np.arange(BINS_AFTER) + 0.5) * width
        for axes, name in zip(panels, names, strict=True):
            own = [run for run in runs if run.name == name]
            changed, others = pool_bins([run.changed for run in own]), pool_bins([run.others for run in own])
            for number, mode in enumerate(MODES):
                axes.plot(after, changed.after[mode], color=f"C{number}", marker="o", markersize=3, label=mode)
                axes.plot(after, others.after[mode], color=f"C{number}", linestyle=":", linewidth=1)
            axes.axhline(changed.before, color="0.4", linestyle="--", linewidth=1, label="before the change")
            axes.axvline(RECOVERY_BINS * width, color="0.7", linewidth=1)
            axes.set_title(name)
            axes.xaxis.set_major_formatter(_THOUSANDS)
            axes.set_xlabel("pages since the change")
        panels[0].set_ylabel("excess of expected log loss, nats")
        lines = panels[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside right upper", title="changed queries\n(dotted: the others)")
        _save(figure, path)


def _plot_style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "svg.hashsalt": "bench.quality",
            "svg.fonttype": "none",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
        }
    )


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
