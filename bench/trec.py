"""`python -m bench.trec`: a real search log (TREC Session Track 2013), compared with position-only baselines.

399 pages, 4,449 impressions, 558 clicks; all metrics are prequential, over the whole log. The licence does not allow
a copy in this repository: the log is read from ../shared, and the command fails if it is missing.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray

from bench.quality.ranking_quality import auc, page_gauc
from testkit.command import PRECTR, environment
from testkit.trec import TREC_PAGES, trec_events, write_trec_log

BASELINE_AUC: Final = 0.6486
BASELINE_GAUC: Final = 0.6962
"""Baseline: an online logistic regression on position alone. A model must exceed it by 0.01."""

TREC_MODELS: Final = ("lr", "dnn", "wide-deep", "wide-deep+")
MODEL_SETTINGS: Final[dict[str, dict[str, str]]] = {}
"""PRECTR_* settings that differ from the defaults here, by model."""

Pages = list[tuple[NDArray[np.int64], NDArray[np.float64]]]


class Row(msgspec.Struct, frozen=True):
    """Prequential quality of one scorer, and its settings that differ from the defaults."""

    name: str
    impressions: int
    clicks: int
    auc: float
    gauc: float
    settings: dict[str, str]


class ReplayReport(msgspec.Struct, frozen=True):
    """The fields of a report that are read here."""

    impressions: int
    clicks: int
    auc: float
    gauc: float


def read_pages() -> Pages:
    """Positions int64[n] and clicks float64[n] of every page, in order of time."""
    events = list(trec_events())
    clicked = {(event["request_id"], event["item_id"]) for event in events if event["type"] == "click"}
    return [
        (
            np.array([item["position"] for item in page["items"]]),
            np.array([float((page["request_id"], item["item_id"]) in clicked) for item in page["items"]]),
        )
        for page in events
        if page["type"] == "impression"
    ]


def log_position_features(positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64[n, 2]: a constant 1, and the logarithm of the position."""
    return np.stack([np.ones(len(positions)), np.log(positions)], axis=1)


def position_indicator_features(positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64[n, 51]: a constant 1, and an indicator of each position up to 50."""
    features = np.zeros((len(positions), 51))
    features[:, 0] = 1.0
    features[np.arange(len(positions)), np.minimum(positions, 50)] = 1.0
    return features


def position_only_baseline(pages: Pages, name: str, features: Any, *, alpha: float, batch_pages: int) -> Row:
    """Logistic regression by FTRL-Proximal (McMahan et al. 2013; β = 1, no penalty) on the position only."""
    width = features(pages[0][0]).shape[1]
    weights, z, n = np.zeros(width), np.zeros(width), np.zeros(width)
    scored: list[NDArray[np.float64]] = []
    batch: Pages = []
    for page in pages:
        scored.append(features(page[0]) @ weights)
        batch.append(page)
        if len(batch) < batch_pages:
            continue
        for positions, clicks in batch:
            for x, click in zip(features(positions), clicks, strict=True):
                gradient = (1.0 / (1.0 + np.exp(-x @ weights)) - click) * x
                z += gradient - (np.sqrt(n + gradient**2) - np.sqrt(n)) / alpha * weights
                n += gradient**2
                weights = -z * alpha / (1.0 + np.sqrt(n))
        batch = []
    return _make_row(name, scored, [clicks for _, clicks in pages])


def replay_model(log: Path, run_dir: Path, model: str) -> Row:
    """Replay the log with one model through the command line, and read the metrics from its report."""
    settings = MODEL_SETTINGS.get(model, {})
    command = [*PRECTR, "replay", str(log), "--run-dir", str(run_dir), "--model", model]
    subprocess.run(command, env=environment(**settings), capture_output=True, check=True)
    report = msgspec.json.decode((run_dir / "report.json").read_bytes(), type=ReplayReport)
    return Row(model, report.impressions, report.clicks, report.auc, report.gauc, settings)


def main(json: Annotated[Path | None, typer.Option(help="Write the rows to this file as JSON.")] = None) -> None:
    """Example: python -m bench.trec --json trec.json."""
    if not TREC_PAGES.exists():
        print("the TREC 2013 log is missing: put it at ../shared/data/trec-session-2013", file=sys.stderr)
        raise typer.Exit(1)
    pages = read_pages()
    rows = [
        position_only_baseline(
            pages, "position alone: logarithm, batches of 16 pages", log_position_features, alpha=0.1, batch_pages=16
        ),
        position_only_baseline(
            pages, "position alone: logarithm, page by page", log_position_features, alpha=0.3, batch_pages=1
        ),
        position_only_baseline(
            pages,
            "position alone: one weight per position, page by page",
            position_indicator_features,
            alpha=0.5,
            batch_pages=1,
        ),
    ]
    with tempfile.TemporaryDirectory() as folder:
        log = write_trec_log(Path(folder, "trec.jsonl"))
        rows += [replay_model(log, Path(folder, model), model) for model in TREC_MODELS]
    print(
        f"{rows[0].impressions:,} impressions, {rows[0].clicks} clicks; baseline AUC {BASELINE_AUC},"
        f" page GAUC {BASELINE_GAUC}"
    )
    print("| | AUC | page GAUC | settings |\n|---|---|---|---|")
    for row in rows:
        settings = ", ".join(f"`{name}={value}`" for name, value in row.settings.items())
        print(f"| {row.name} | {row.auc:.4f} | {row.gauc:.4f} | {settings or 'default'} |")
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode({"rows": rows})) + b"\n")


def _make_row(name: str, scored: list[NDArray[np.float64]], clicked: list[NDArray[np.float64]]) -> Row:
    longest = max(len(scores) for scores in scored)
    scores, labels = np.zeros((len(scored), longest)), np.zeros((len(scored), longest))
    present = np.zeros((len(scored), longest), dtype=np.bool_)
    for index, (page_scores, clicks) in enumerate(zip(scored, clicked, strict=True)):
        scores[index, : len(page_scores)], labels[index, : len(page_scores)], present[index, : len(page_scores)] = (
            page_scores,
            clicks,
            True,
        )
    flat = scores[present], labels[present]
    return Row(name, len(flat[0]), int(flat[1].sum()), auc(*flat), page_gauc(scores, labels, present), {})


if __name__ == "__main__":
    typer.run(main)
