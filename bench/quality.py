"""Every model between the floors and the oracle of the simulated world, `python -m bench.quality`.

For each seed: simulate a log with its truth, replay it once through the real pipeline with all models learning from
it, measure. What is done is kept under `--work`, a file a seed and contender, so that a run that was cut off goes on;
scores that other code or settings made are made anew. Two runs beside each other may share a `--work` if their seeds
differ, and a third one over all of the seeds then only measures. The figures are those of `bench.quality_rows.Row`.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from bench.provenance import command_line, machine, versions
from bench.quality_page import Result, markdown
from bench.quality_rows import Difference, Row, measure, paired, with_shares
from bench.quality_scores import (
    REFERENCE,
    Contender,
    Scores,
    floor_scores,
    model_identity,
    oracle_scores,
    read_scores,
    reference_identity,
    reference_scores,
    replay_models,
    write_scores,
)
from bench.quality_truth import Truth, make_log, read_truth
from model.registry import MODELS
from ops.config import Settings, load_settings
from ops.console import meter
from state.errors import PrectrError, UsageError
from stream.simulator import WorldSettings

RESULTS: Final = Path(__file__).parent / "results" / "quality.md"
WORK: Final = Path(__file__).parents[1] / "build" / "bench-quality"
HEADLINE: Final = ("lr", "dnn", "wide-deep", "wide-deep+")
SETTINGS: Final = {"batch_pages": 16, "batch_span": "1d"}
COMPARED: Final = ("auc", "auc_expected", "auc_new", "auc_never_shown", "expected_clicks")


def measure_world(
    settings: WorldSettings, models: Sequence[Contender], trained_by: Settings, folder: Path
) -> list[Row]:
    """All rows of one world: floors, models, reference learner, oracle. `folder` keeps what can be used again."""
    start = time.monotonic()

    def say(what: str) -> None:
        print(f"seed {settings.seed}: {what} ({time.monotonic() - start:.0f} s)", file=sys.stderr)

    make_log(settings, folder)
    truth = read_truth(settings, folder)
    say(f"{truth.pages:,} pages simulated")
    scored = {Contender(model=name): scores for name, scores in floor_scores(truth).items()}
    scored = dict(sorted(scored.items(), key=lambda pair: pair[0].model))
    scored |= model_scores(truth, models, trained_by, folder)
    say("models replayed")
    scored[Contender(model=REFERENCE)] = _reference(truth, folder)
    say("reference learner done")
    scored[Contender(model="oracle")] = oracle_scores(truth)
    rows = with_shares([measure(truth, scores, contender) for contender, scores in scored.items()], REFERENCE)
    say("measured")
    return rows


def model_scores(
    truth: Truth, models: Sequence[Contender], settings: Settings, folder: Path
) -> dict[Contender, Scores]:
    """The scores of the models, those that are not kept from a single replay."""
    kept = {
        contender: read_scores(_file(folder, contender), model_identity(truth, settings, contender))
        for contender in models
    }
    missing = [contender for contender, scores in kept.items() if scores is None]
    made: dict[Contender, Scores] = {}
    if missing:
        run_dir = folder / "replay"
        with meter(f"replay of seed {truth.world.settings.seed}", truth.log.stat().st_size) as shown:
            made = replay_models(
                truth,
                run_dir,
                settings,
                missing,
                lambda run: shown.update(run.bytes_read, f"{run.pages:,} pages"),
            )
        for contender, scores in made.items():
            write_scores(_file(folder, contender), scores, model_identity(truth, settings, contender))
        shutil.rmtree(run_dir)
    return {contender: made[contender] if scores is None else scores for contender, scores in kept.items()}


def _reference(truth: Truth, folder: Path) -> Scores:
    file, identity = _file(folder, Contender(model=REFERENCE)), reference_identity(truth)
    scores = read_scores(file, identity)
    if scores is None:
        scores = reference_scores(truth)
        write_scores(file, scores, identity)
    return scores


def _file(folder: Path, contender: Contender) -> Path:
    return folder / f"{contender.track} {contender.name}.safetensors".replace(" ", "-")


def differences(rows: Sequence[Row], models: Sequence[Contender]) -> list[Difference]:
    """Each model against the one named before it, paired by seed."""
    found = [paired(rows, after.name, before.name, key) for before, after in pairwise(models) for key in COMPARED]
    return [difference for difference in found if difference is not None]


def run(
    models: Sequence[Contender], worlds: Sequence[WorldSettings], work: Path, command: str = "bench.quality"
) -> Result:
    """Measure the models in each of the worlds, which differ in their seeds alone.

    Raises:
        UsageError: no such model, or not as many pages as can be measured.
        PrectrError: whatever simulation or replay does not allow.
    """
    trained_by = load_settings(None, SETTINGS, environ={})
    rows: list[Row] = []
    for world in worlds:
        rows += measure_world(world, models, trained_by, work / f"{world.pages}-{world.days:g}-{world.seed}")
    return Result(
        rows=rows,
        differences=differences(rows, models) if len(worlds) > 1 else [],
        pages=worlds[0].pages,
        days=worlds[0].days,
        seeds=[world.seed for world in worlds],
        command=command,
        date=time.strftime("%Y-%m-%d"),
        machine=machine(),
        versions=versions("torch", "numpy", "prectr-streaming"),
        settings={name: str(value) for name, value in SETTINGS.items()},
    )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags, with `seeds` and `models` as lists. UsageError: a value that means nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--models", default=",".join(HEADLINE), help=f"comma-separated, of {', '.join(MODELS)}")
    parser.add_argument("--pages", type=int, default=60_000)
    parser.add_argument("--days", type=float, default=14.0, help="event time of the log; fewer for a small one")
    parser.add_argument("--track", default="G", help="G: every model is given the level of what it scores")
    parser.add_argument("--json", type=Path, help="write the result for a program")
    parser.add_argument("--work", type=Path, default=WORK, help="keeps logs and scores, so that a run can go on")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the page that is written")
    flags = parser.parse_args(arguments)
    if flags.track != "G":
        raise UsageError(f"--track {flags.track}: there is only G as yet; T needs the text encoder")
    try:
        flags.seeds = [int(seed) for seed in flags.seeds.split(",")]
    except ValueError as error:
        raise UsageError(f"--seeds {flags.seeds}: give whole numbers with commas between, such as 0,1,2") from error
    if len(set(flags.seeds)) < len(flags.seeds):
        raise UsageError(f"--seeds {','.join(map(str, flags.seeds))}: a seed is named twice")
    names = flags.models.split(",")
    for name in names:
        if name not in MODELS:
            raise UsageError(f"--models: there is no {name!r}; there are {', '.join(MODELS)}")
    flags.models = [Contender(model=name, track=flags.track) for name in dict.fromkeys(names)]
    return flags


def main() -> None:
    """Measure, print, and write bench/results/quality.md."""
    try:
        flags = parse(sys.argv[1:])
        command = command_line("bench.quality", sys.argv[1:])
        worlds = [WorldSettings(pages=flags.pages, days=flags.days, seed=seed) for seed in flags.seeds]
        result = run(flags.models, worlds, flags.work, command)
    except PrectrError as error:
        print(f"bench.quality: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    text = markdown(result)
    print(text)
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    flags.out.write_text(text, encoding="utf-8")
    if flags.json:
        flags.json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


if __name__ == "__main__":
    main()
