"""`prectr demo`: simulates a log over a real catalogue, replays it with every model, and ranks with the first."""

import csv
from pathlib import Path
from typing import Annotated, Final

import typer

from prectr.model.config import MODEL_NAMES
from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.options import MetricsPort
from prectr.ops.settings.loader import load_settings
from prectr.stream.events.contract import Item

MODELS: Final = tuple(reversed(MODEL_NAMES))
SETTINGS: Final = {"batch_span": "1d", "level_source": "inferred"}
"""Every model is told the same: relevance levels are inferred from the text, and the grades are read by none."""
QUERY: Final = "wireless mouse"
USER: Final = "u1167"
CANDIDATES: Final = (
    Item("77195849", "HyperX FURY Ultra Black Gaming mouse pad", None, 97.95, "mouse pad", "HyperX", None),
    Item("1929829", "HP Voodoo Laser Gaming mouse USB Type-A 3200 DPI", None, 29.95, "mouse", "HP", None),
    Item("2103305", "Philips SWV2432W 6 ft HDMI cable", None, 29.95, "cable", "Philips", None),
    Item("2704878", "HP Wireless Eco-comfort Mobile mouse RF Wireless Optical", None, 8.94, "mouse", "HP", None),
    Item("3484710", "Philips Wireless notebook mouse SPM7800/10", None, 20.95, "mouse", "Philips", None),
)
"""Items of the catalogue: what a person would put first is plain to see."""


def demo(
    run_dir: Annotated[Path, typer.Option(help="Folder for the log, the run and the report.")] = Path("demo-run"),
    pages: Annotated[int, typer.Option(min=100, help="Result pages to simulate.")] = 6_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulated log.")] = 0,
    metrics_port: MetricsPort = None,
) -> None:
    """Simulate a click log over the Chorus catalogue, replay it with every model, and compare them with the oracle.

    Products, queries and relevance grades are real (Chorus, graded by people); users and clicks are simulated. The
    models infer relevance from the text. At the end, the first of them ranks five products for a query.

    Example: prectr demo --pages 5000
    """
    from prectr.ops.ranking.service import RankQuery, RunRanker, RunRef  # noqa: PLC0415
    from prectr.ops.ranking.terminal import print_ranking  # noqa: PLC0415
    from prectr.ops.report.terminal import print_report  # noqa: PLC0415
    from prectr.ops.training.replay import run_replay  # noqa: PLC0415 (torch takes seconds to import)
    from prectr.stream.replay.runner import RunnerOptions  # noqa: PLC0415

    typer.echo(
        "Demo: real products, queries and relevance grades (Chorus; product data by Icecat), simulated users and "
        "clicks. The true click probabilities are known: the oracle row scores with them, as the upper bound. Every "
        "model infers relevance from the text."
    )
    log, truth = _simulate_log(run_dir, pages, seed)
    report, page = run_replay(
        [str(log)],
        run_dir,
        load_settings(None, SETTINGS),
        models=MODELS,
        truth=truth,
        options=RunnerOptions(restart=True),
        metrics_port=metrics_port,
    )
    print_report(report, page)
    candidates = _write_candidates(run_dir / "candidates.csv")
    print_ranking(
        RunRanker(RunRef(run_dir=run_dir)).rank(RankQuery(query=QUERY, user_id=USER, items=CANDIDATES)),
        len(CANDIDATES),
    )
    typer.echo(
        f'Ranked by: prectr rank --run-dir {run_dir} --query "{QUERY}" --user {USER} --candidates {candidates}\n'
        f"Next: open the report in a browser; prectr verify --run-dir {run_dir}"
    )


def _simulate_log(run_dir: Path, pages: int, seed: int) -> tuple[Path, Path]:
    """Write the log and its true click probabilities; returns their paths."""
    from prectr.stream.simulator import WorldSettings, simulate  # noqa: PLC0415 (--help needs no simulator)

    run_dir.mkdir(parents=True, exist_ok=True)
    log, truth = run_dir / "log.jsonl.gz", run_dir / "truth.parquet"
    with progress_bar("simulate", pages) as bar:
        simulated = simulate(
            log,
            WorldSettings(pages=pages, seed=seed, catalogue="chorus"),
            truth=truth,
            progress=lambda done, _total: bar.update(done, f"{done:,} pages"),
        )
    typer.echo(
        f"{log}: {simulated.pages:,} pages, {simulated.clicks:,} clicks, {simulated.malformed_events:,} invalid events"
    )
    return log, truth


def _write_candidates(path: Path) -> Path:
    """Write the candidates as the file that `prectr rank` reads; returns its path."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "title", "price", "category", "brand"])
        rows.writerows([item.item_id, item.title, item.price, item.category, item.brand] for item in CANDIDATES)
    return path
