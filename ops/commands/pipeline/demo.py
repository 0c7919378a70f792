"""`prectr demo`: simulates a log over a real catalogue and replays it with every model."""

from pathlib import Path
from typing import Annotated, Final

import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.options import MetricsPort
from prectr.ops.settings.loader import load_settings

MODELS: Final = ("prectr-v2", "prectr", "wide-deep+", "wide-deep", "dnn", "lr")


def demo(
    run_dir: Annotated[Path, typer.Option(help="Folder for the log, the run and the report.")] = Path("demo-run"),
    pages: Annotated[int, typer.Option(min=100, help="Result pages to simulate.")] = 6_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulated log.")] = 0,
    metrics_port: MetricsPort = None,
) -> None:
    """Simulate a click log over the Chorus catalogue, replay it with every model, and compare them with the oracle.

    Products, queries and relevance grades are real (Chorus, graded by people); users and clicks are simulated.

    Example: prectr demo --pages 5000
    """
    from prectr.ops.report.terminal import print_report  # noqa: PLC0415
    from prectr.ops.training.replay import run_replay  # noqa: PLC0415 (torch takes seconds to import)
    from prectr.stream.replay.runner import RunnerOptions  # noqa: PLC0415
    from prectr.stream.simulator import WorldSettings, simulate  # noqa: PLC0415

    typer.echo(
        "Demo: real products, queries and relevance grades (Chorus; product data by Icecat), simulated users and "
        "clicks. The true click probabilities are known: the oracle row scores with them, as the upper bound."
    )
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
    report, page = run_replay(
        [str(log)],
        run_dir,
        load_settings(None, {"batch_span": "1d"}),
        models=MODELS,
        truth=truth,
        options=RunnerOptions(restart=True),
        metrics_port=metrics_port,
    )
    print_report(report, page)
    typer.echo(f"Next: open the report in a browser; prectr verify --run-dir {run_dir}")
