"""`python -m bench.train`: impressions per second of every model, live and for the network alone.

Live: the whole work of the trainer on examples from the stages: decode, features, score, measure, train. Network alone:
score and train the same model on prepared batches. Both process the same pages, alternately, in each round.
"""

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Final

import msgspec
import torch
import typer
from rich.console import Console
from rich.table import Table

from bench.provenance import command_line, machine, versions
from bench.relevance.log_examples import Catalogue, collect_examples
from bench.train.competitors import competitor_speeds
from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch, FeatureEncoder
from prectr.model.features.smoothing import PriorRates
from prectr.model.models.registry import MODELS, make_model
from prectr.model.training.device import pick_device
from prectr.model.training.trainer import Trainer
from prectr.ops.cli.console import progress_bar
from prectr.ops.settings.loader import load_settings
from prectr.state.errors import UsageError
from prectr.stream.records import Example

_FULL_ENCODER: Final = "prectr-v2, encoder on every pair"


class Row(msgspec.Struct, frozen=True):
    """Impressions per second, median over rounds, and the median of their ratios within a round."""

    model: str
    live: float
    network_alone: float
    ratio: float


class Result(msgspec.Struct, frozen=True):
    """All rows, and impressions per second of competitors on the features of `lr`, by name."""

    pages: int
    impressions: int
    threads: int
    machine: str
    versions: str
    command: str
    rows: list[Row]
    competitors: dict[str, float]


def main(
    pages: Annotated[
        int, typer.Option(min=400, help="Timed pages of 10 items, after half as many for warm-up.")
    ] = 4_000,
    models: Annotated[str, typer.Option(help="Comma-separated; default: all.")] = ",".join(MODELS),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; both sides are measured in each.")] = 3,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of torch; 0: torch's default.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    catalogue: Annotated[Catalogue, typer.Option(help="The shipped encoder is trained on chorus.")] = "chorus",
    json: Annotated[Path | None, typer.Option(help="Write the result to this file as JSON.")] = None,
) -> None:
    """Measure every model and print a table."""
    config = dataclasses.replace(
        load_settings(None, {"batch_span": "1d"}, environ={}).trainer, threads=threads, device=device
    )
    with tempfile.TemporaryDirectory() as folder:
        examples = collect_examples(Path(folder), pages + pages // 2, catalogue)
    warm_up, timed = examples[: pages // 2], examples[pages // 2 :]
    impressions = sum(len(example.labels) for example in timed)
    configs = [_config(config, name) for name in _parse_models(models)]
    live: dict[str, list[float]] = {name: [] for name, _ in configs}
    alone: dict[str, list[float]] = {name: [] for name, _ in configs}
    with progress_bar("train", rounds * len(configs)) as shown:
        for number in range(rounds):
            for number_of_model, (name, settings) in enumerate(configs):
                live[name].append(impressions / _live_seconds(settings, warm_up, timed))
                alone[name].append(impressions / _network_seconds(settings, warm_up, timed))
                shown.update(number * len(configs) + number_of_model + 1, name)
    rows = [
        Row(
            name,
            median(live[name]),
            median(alone[name]),
            median(one / other for one, other in zip(live[name], alone[name], strict=True)),
        )
        for name, _ in configs
    ]
    result = Result(
        pages=len(timed),
        impressions=impressions,
        threads=threads,
        machine=machine(),
        versions=versions("torch", "numpy"),
        command=command_line("bench.train", _command_arguments(pages, models, rounds, threads, device, catalogue)),
        rows=rows,
        competitors=competitor_speeds(warm_up, timed) if "lr" in live else {},
    )
    _print(result)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


def _command_arguments(pages: int, models: str, rounds: int, threads: int, device: str, catalogue: str) -> list[str]:
    given = {"pages": pages, "models": models, "rounds": rounds, "threads": threads, "device": device}
    return [part for name, value in {**given, "catalogue": catalogue}.items() for part in (f"--{name}", str(value))]


def _parse_models(models: str) -> list[str]:
    names = models.split(",")
    for name in names:
        if name not in MODELS:
            raise UsageError(f"--models: unknown model {name!r}; choose from {', '.join(MODELS)}")
    return [*names, _FULL_ENCODER] if "prectr-v2" in names else names


def _config(config: TrainerConfig, name: str) -> tuple[str, TrainerConfig]:
    if name == _FULL_ENCODER:
        return name, dataclasses.replace(config, model="prectr-v2", encoder_share=1.0)
    return name, dataclasses.replace(config, model=name)


def _live_seconds(config: TrainerConfig, warm_up: Sequence[Example], timed: Sequence[Example]) -> float:
    """Seconds that a trainer takes for the timed examples."""
    trainer = Trainer(config)
    trainer.consume(warm_up, 0)
    trainer.flush()
    start = time.perf_counter()
    trainer.consume(timed, 0)
    trainer.flush()
    _synchronize(config)
    return time.perf_counter() - start


def _network_seconds(config: TrainerConfig, warm_up: Sequence[Example], timed: Sequence[Example]) -> float:
    """Seconds that the model alone takes to score and train on the same examples, in prepared batches."""
    model = make_model(config, pick_device(config.device))
    encoder, parents = FeatureEncoder(), PriorRates(config.prior_rates_size, config.smoothing)

    def batches(examples: Sequence[Example]) -> list[Batch]:
        size = config.batch_pages
        chunks = [examples[start : start + size] for start in range(0, len(examples), size)]
        return [encoder.encode(chunk, parents, model.feature_needs) for chunk in chunks]

    def learn(batch: Batch) -> None:
        model.step(model.gradients(batch, model.forward(batch)))

    torch.set_num_threads(config.threads or torch.get_num_threads())
    for batch in batches(warm_up):
        learn(batch)
    ready = batches(timed)
    start = time.perf_counter()
    for batch in ready:
        learn(batch)
    _synchronize(config)
    return time.perf_counter() - start


def _synchronize(config: TrainerConfig) -> None:
    if pick_device(config.device).type == "cuda":
        torch.cuda.synchronize()


def _print(result: Result) -> None:
    table = Table("model", "live, impressions/s", "network alone", "live / alone")
    for row in result.rows:
        table.add_row(row.model, f"{row.live:,.0f}", f"{row.network_alone:,.0f}", f"{row.ratio:.2f}")
    for name, speed in result.competitors.items():
        table.add_row(name, f"{speed:,.0f}", "–", "–")
    console = Console()
    console.print(f"{result.command}: {result.impressions:,} impressions, {result.machine}, {result.versions}")
    console.print(table)
