"""Every model between the baselines and the oracle of the simulated world, `python -m bench.quality`.

For each seed: simulate a log with its ground truth, replay it once through the real pipeline with all models training
on it, and measure. Scores are cached under `--work`, one file per seed and variant; results are kept in one record
beside the page, which is rendered from it. So the benchmark can run in pieces, and an interrupted run can be resumed.
Scores made by other code or settings are recomputed, unless `--any-code` accepts them. Two concurrent runs may share a
`--work` if their seeds differ. For the metrics see `bench.quality.rows.Row`.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from bench.provenance import command_line, machine, versions
from bench.quality.bootstrap import BootstrapResult
from bench.quality.page import write_page
from bench.quality.record import QualityResults, read_results, update_results
from bench.quality.rows import Difference, Row, paired_difference
from bench.quality.scores import model_code
from bench.quality.variants import Variant, comparisons, make_variants
from bench.world import learning_curve
from bench.world.drift import DriftRun, drift_identity, run_drift
from bench.world.ground_truth import make_log, read_truth
from bench.world.learning_curve import CurvePoint, measure_curve
from bench.world.run_world import LevelAccuracy, RunContext, measure_world
from bench.world.stage_one import Recipe, make_stage_one, make_uneven
from prectr.model.models.registry import MODELS
from prectr.model.text.encoder.artifact import load_encoder
from prectr.ops.cli.console import set_up_logging
from prectr.ops.settings.loader import load_settings
from prectr.state.errors import PrectrError, UsageError
from prectr.stream.simulator import WorldSettings

RESULTS: Final = Path(__file__).parents[1] / "results" / "quality.md"
WORK: Final = Path(__file__).parents[2] / "build" / "bench-quality"
PAGES: Final = 60_000
DAYS: Final = 14.0
HEADLINE_MODELS: Final = ("lr", "dnn", "wide-deep", "wide-deep+", "prectr", "prectr-v2")
BOTH_TRACK_MODELS: Final = ("wide-deep+", "prectr-v2")
BATCH_SETTINGS: Final = {"batch_pages": 16, "batch_span": "1d"}
COMPARED_METRICS: Final = (
    "auc_expected",
    "auc",
    "gauc_expected",
    "auc_new",
    "auc_low",
    "auc_active",
    "auc_never_shown",
    "expected_clicks",
    "share_level_1",
)

_Found = TypeVar("_Found")


class Result(msgspec.Struct, kw_only=True):
    """Results of one command, as written by `--json`."""

    rows: list[Row]
    differences: list[Difference]
    levels: list[LevelAccuracy]
    curve: list[CurvePoint]
    drift: list[DriftRun]
    pages: int
    days: float
    seeds: list[int]
    command: str
    date: str
    machine: str
    versions: str
    settings: dict[str, str]
    seconds: float


def paired_differences(rows: Sequence[Row], resampled: Sequence[BootstrapResult] = ()) -> list[Difference]:
    """Differences between each variant and those it is compared with, paired by seed, within each track."""
    found = []
    for track in dict.fromkeys(row.track for row in rows):
        own = [row for row in rows if row.track == track]
        bootstraps = [one for one in resampled if one.track == track]
        names = list(dict.fromkeys(row.name for row in own))
        found += [
            paired_difference(own, *pair, metric, bootstraps)
            for pair in comparisons(names)
            for metric in COMPARED_METRICS
        ]
    return [difference for difference in found if difference is not None]


# --- one command ------------------------------------------------------------------------------------------------------


class QualityBench:
    """One command: adds each result to the record as soon as it is measured."""

    def __init__(self, flags: argparse.Namespace, context: RunContext) -> None:
        self.flags = flags
        self.context = context
        self.found = QualityResults(pages=flags.pages, days=flags.days)
        """Results of this command alone."""

    def worlds(self, *, drift: bool = False) -> list[WorldSettings]:
        """Settings of the simulated worlds, one per seed."""
        flags = self.flags
        return [
            WorldSettings(
                pages=flags.pages,
                days=flags.days,
                seed=seed,
                drift=drift,
                queries=flags.queries,
                items=flags.items,
                users=flags.users,
            )
            for seed in flags.seeds
        ]

    def tables(self) -> None:
        """Measure all variants in each world."""
        for measured in self._for_each_world(measure_world, self.worlds()):
            with self._records() as records:
                for record in records:
                    record.add(measured)

    def curve(self) -> None:
        """Measure learning curves on the first seed."""
        for points in measure_curve(self.worlds()[0], self.flags.sizes, self.flags.variants, self.context):
            with self._records() as records:
                for record in records:
                    record.add_curve(points)

    def drift(self) -> None:
        """Measure worlds with drift."""
        known = read_results(self.flags.record, self.flags.pages, self.flags.days).drift
        kept = [run for run in known if self.context.any_code or run.code == model_code()]
        for runs in self._for_each_world(_DriftRunner(kept), self.worlds(drift=True)):
            with self._records() as records:
                for record in records:
                    record.add_drift(runs)

    @contextmanager
    def _records(self) -> Iterator[tuple[QualityResults, QualityResults]]:
        """Results of this command, and the record, both open for updates."""
        with update_results(self.flags.record, self.flags.pages, self.flags.days) as record:
            yield self.found, record

    def _for_each_world(
        self,
        measure_one: Callable[[WorldSettings, Sequence[Variant], RunContext], _Found],
        worlds: Sequence[WorldSettings],
    ) -> Iterator[_Found]:
        """Yield the results of each world as they complete; with several jobs in processes of their own."""
        if self.flags.jobs == 1 or len(worlds) == 1:
            for world in worlds:
                yield measure_one(world, self.flags.variants, self.context)
            return
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.flags.jobs, spawned, initializer=set_up_logging) as pool:
            futures = [pool.submit(measure_one, world, self.flags.variants, self.context) for world in worlds]
            for future in as_completed(futures):
                yield future.result()


class _DriftRunner:
    """Measures a world with drift; reuses runs of the same settings."""

    def __init__(self, known: Sequence[DriftRun]) -> None:
        self._known = {(run.name, run.track, run.seed, run.identity): run for run in known}

    def __call__(self, world: WorldSettings, models: Sequence[Variant], context: RunContext) -> list[DriftRun]:
        folder = context.folder(world)
        make_log(world, folder)
        truth = read_truth(world, folder)
        kept, missing = [], []
        for one in models:
            identity = drift_identity(truth, context.settings, one, context.encoder)
            run = self._known.get((one.name, one.track, world.seed, identity))
            kept += [] if run is None else [run]
            missing += [one] if run is None else []
        print(f"seed {world.seed}, drift: {len(missing)} models to run", file=sys.stderr)
        return kept + (
            run_drift(truth, folder / "replay", context.settings, missing, context.encoder) if missing else []
        )


# --- the command line -------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; adds `variants`, and turns lists into lists.

    Raises:
        UsageError: a value is not valid.
    """
    flags = _parser().parse_args(arguments)
    if flags.curve and flags.drift:
        raise UsageError("--curve and --drift are two commands: give one of them")
    if flags.curve and flags.seeds and "," in flags.seeds:
        raise UsageError(f"--curve --seeds {flags.seeds}: a learning curve uses one seed")
    if flags.jobs < 1:
        raise UsageError(f"--jobs {flags.jobs}: give at least 1")
    flags.seeds = _parse_integers("--seeds", flags.seeds or ("0" if flags.curve else "0,1,2"))
    flags.sizes = _parse_integers("--sizes", flags.sizes)
    flags.recipe = _parse_recipe(flags.recipe)
    if flags.models is None:
        flags.models = ",".join(_default_models(flags))
    flags.variants = make_variants(
        _split_names(flags.models),
        flags.track,
        without=_split_names(flags.without),
        debias=_split_names(flags.debias),
        settings=[_parse_setting(text) for text in flags.set],
    )
    if not flags.variants:
        raise UsageError("--models '': name a model, or a component by --without or --debias")
    if flags.out is None and (flags.pages, flags.days) == (PAGES, DAYS) and flags.queries is flags.items is None:
        flags.out = RESULTS
    if flags.record is None:
        flags.record = flags.work if flags.out is None else flags.out.parent
    return flags


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", help="comma-separated; default: 0,1,2, with --curve 0")
    add("--models", help=f"comma-separated, of {', '.join(MODELS)}; '' for the ablations of --without alone")
    add("--track", default="T", choices=["T", "G"], help="T: relevance levels are inferred; G: they are given")
    add("--without", default="", help="components of prectr-v2, comma-separated, each an ablation; or all")
    add("--debias", default="", help="debias forms of prectr-v2: none,hinge,prior_adjustment,prior_adjustment+soft")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a trainer setting for every model")
    add("--curve", action="store_true", help="learning curves over --sizes instead of tables")
    add("--drift", action="store_true", help="worlds with drift instead of tables")
    add("--sizes", default=",".join(map(str, learning_curve.LOG_PAGES)), help="log sizes of --curve, in pages")
    add("--pages", type=int, default=PAGES, help="pages per log")
    add("--days", type=float, default=DAYS, help="event time covered by the log, in days")
    add("--queries", type=int, help="queries of the catalogue, for a small world")
    add("--items", type=int, help="items of the catalogue, for a small world")
    add("--users", type=int, help="users, for a small world")
    add("--stage-one", type=Path, help="folder of a stage-one encoder to use instead of training one")
    recipe = 'how to train stage one, as JSON: {"pairs": 4000, "training": {"tune_epochs": 40}}'
    add("--recipe", default="{}", help=recipe)
    add("--relevance", type=Path, help="add the results written by `bench.relevance --json` to the record")
    add("--jobs", type=int, default=1, help="worlds measured in parallel, one process each")
    add("--any-code", action="store_true", help="reuse cached scores even if other code made them")
    add("--page-only", action="store_true", help="measure nothing; render the page from the record")
    add("--json", type=Path, help="write the results of this command as JSON")
    add("--work", type=Path, default=WORK, help="folder for cached logs, stage-one encoders and scores")
    add("--record", type=Path, help="folder of the record; default: that of the page")
    add("--out", type=Path, help="the page; default for full-size worlds: bench/results/quality.md")
    return parser


def _default_models(flags: argparse.Namespace) -> Sequence[str]:
    if flags.curve:
        return learning_curve.MODELS
    return HEADLINE_MODELS if flags.track == "T" and not flags.drift else BOTH_TRACK_MODELS


def _split_names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _parse_integers(flag: str, text: str) -> list[int]:
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{flag} {text}: give comma-separated whole numbers, such as 0,1,2") from error
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"{flag} {text}: a number is repeated")
    return numbers


def _parse_setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise UsageError(f"--set {text}: give NAME=VALUE, such as encoder_share=1")
    return name.strip(), value.strip()


def _parse_recipe(text: str) -> Recipe:
    try:
        return msgspec.json.decode(text, type=Recipe)
    except msgspec.DecodeError as error:
        raise UsageError(f"--recipe {text}: {error}; give JSON with fields of bench.world.stage_one.Recipe") from error


def _read_relevance(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"--relevance {path}: {error}; give a file written by `bench.relevance --json`") from error
    if not isinstance(found, dict) or "rows" not in found:
        raise UsageError(f"--relevance {path}: has no rows; give a file written by `bench.relevance --json`")
    return found


def run_command(flags: argparse.Namespace, command: str) -> Result:
    """Run what the flags select, and add the results to the record.

    Raises:
        UsageError: too few pages to measure.
        PrectrError: simulation, pre-training or replay failed.
    """
    start = time.monotonic()
    settings = load_settings(None, {**BATCH_SETTINGS}, environ={})
    encoder = flags.stage_one or make_stage_one(flags.recipe, flags.work)
    provenance = load_encoder(encoder).header.provenance
    for variant in flags.variants:
        if variant.graded is not None:
            make_uneven(encoder, variant.graded)
    quality_bench = QualityBench(flags, RunContext(settings, encoder, flags.work, flags.any_code))
    if flags.curve:
        quality_bench.curve()
    elif flags.drift:
        quality_bench.drift()
    else:
        quality_bench.tables()
    seconds = time.monotonic() - start
    with update_results(flags.record, flags.pages, flags.days) as record:
        record.add_command(command, seconds)
        record.stage_one = provenance
        record.settings = {name: str(value) for name, value in BATCH_SETTINGS.items()}
    found = quality_bench.found
    return Result(
        rows=found.rows,
        differences=paired_differences(found.rows, found.resampled),
        levels=found.levels,
        curve=found.curve,
        drift=found.drift,
        pages=flags.pages,
        days=flags.days,
        seeds=flags.seeds,
        command=command,
        date=time.strftime("%Y-%m-%d"),
        machine=machine(),
        versions=versions("torch", "numpy", "prectr-streaming"),
        settings=record.settings,
        seconds=round(seconds, 1),
    )


def main() -> None:
    """Measure, then write and print the page."""
    set_up_logging()
    try:
        flags = parse(sys.argv[1:])
        if flags.relevance is not None:
            found = _read_relevance(flags.relevance)
            with update_results(flags.record, flags.pages, flags.days) as record:
                record.relevance = found
        result = None if flags.page_only else run_command(flags, command_line("bench.quality", sys.argv[1:]))
        record = read_results(flags.record, flags.pages, flags.days)
        text = write_page(record, paired_differences(record.rows, record.resampled), flags.out)
    except PrectrError as error:
        print(f"bench.quality: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    print(text)
    if flags.json and result is not None:
        flags.json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
