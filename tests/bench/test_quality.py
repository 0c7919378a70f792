"""`bench.quality`: metrics agree with scikit-learn, and recording scores does not change training."""

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import ttest_rel  # type: ignore[import-untyped]
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

import bench.world.run_world
from bench.quality.benchmark import parse
from bench.quality.rows import Row, measure_row, paired_difference, ranking_metrics
from bench.quality.scores import (
    ScoreRecordingTrainer,
    Scores,
    baseline_scores,
    model_code,
    model_identity,
    read_scores,
    reference_scores,
    replay_models,
)
from bench.quality.variants import Variant, trainer_config
from bench.world.benchmark import read_log, run_reference_learner
from bench.world.ground_truth import TRUTH_FILE, GroundTruth, Impressions, read_truth
from bench.world.reference_learner import LearnedParts
from bench.world.run_world import RunContext, measure_world
from prectr.model.training.trainer import Trainer
from prectr.ops.settings.loader import Settings, load_settings
from prectr.state.errors import PrectrError, UsageError
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.replay.runner import Replay
from prectr.stream.simulator import WorldSettings
from testkit.provenance import command_line
from tests.kit.models.encoder import tiny_encoder

WORLD = WorldSettings(pages=400, seed=3, days=0.2, queries=40, items=1000, users=150)
MODELS = (Variant(model="lr"), Variant(model="wide-deep+"))
ENCODER = tiny_encoder()
Record = dict[str, Any]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(None, {"embedding_rows": 4096, "wide_rows": 4096, "batch_span": "1d"}, environ={})


@pytest.fixture(scope="module")
def means(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    return RunContext(settings, ENCODER, tmp_path_factory.mktemp("quality"))


@pytest.fixture(scope="module")
def folder(means: RunContext) -> Path:
    return means.folder(WORLD)


@pytest.fixture(scope="module")
def rows(means: RunContext) -> dict[str, Row]:
    return {row.name: row for row in measure_world(WORLD, MODELS, means).rows}


@pytest.fixture(scope="module")
def truth(rows: dict[str, Row], folder: Path) -> GroundTruth:
    return read_truth(WORLD, folder)


@pytest.fixture(scope="module")
def kept(truth: GroundTruth, settings: Settings, folder: Path) -> Scores:
    identity = model_identity(truth, settings, MODELS[1], ENCODER)
    scores = read_scores(folder / "G-wide-deep+.safetensors", identity, model_code())
    assert scores is not None
    return scores


def scored_records(folder: Path, name: str, scores: Iterable[float] | None) -> list[Record]:
    """Records of one slice of the ground-truth file, each with its score."""
    records: list[Record] = [row for row in pq.read_table(folder / TRUTH_FILE).to_pylist() if row["slice"] == name]
    assert scores is not None
    return [record | {"score": score} for record, score in zip(records, scores, strict=True)]


def expected_auc(records: list[Record]) -> float:
    p = np.array([record["probability"] for record in records])
    scores = [record["score"] for record in records]
    return float(roc_auc_score([1] * len(p) + [0] * len(p), scores + scores, sample_weight=np.append(p, 1 - p)))


def gauc(records: list[Record], *, expected: bool) -> float:
    """Page by page with scikit-learn; with expected labels over pairs of impressions."""
    pages = defaultdict(list)
    for record in records:
        pages[record["page"]].append(record)
    total = weight = 0.0
    for page in pages.values():
        if expected:
            pairs = [
                (a["probability"] * (1 - b["probability"]), (a["score"] > b["score"]) + (a["score"] == b["score"]) / 2)
                for a, b in itertools.permutations(page, 2)
            ]
            won = sum(share * win for share, win in pairs) / sum(share for share, _ in pairs)
        elif len({record["joined"] for record in page}) == 1:
            continue
        else:
            won = roc_auc_score([record["joined"] for record in page], [record["score"] for record in page])
        total, weight = total + len(page) * won, weight + len(page)
    return total / weight


def test_metrics_of_shown_impressions_agree_with_scikit_learn(rows: dict[str, Row], kept: Scores, folder: Path) -> None:
    row = rows["wide-deep+"]
    whole = scored_records(folder, "exposed", kept.shown)
    late = [record for record in whole if record["second_half"]]

    def auc(records: list[Record]) -> float:
        return float(roc_auc_score([record["joined"] for record in records], [record["score"] for record in records]))

    probability = [1 / (1 + math.exp(-record["score"])) for record in late]
    clicked = [record["joined"] for record in late]
    assert row.auc == pytest.approx(auc(late), abs=1e-9)
    assert row.auc_whole == pytest.approx(auc(whole), abs=1e-9)
    assert row.auc_new == pytest.approx(auc([r for r in late if r["user_clicks"] < 3]), abs=1e-9)
    assert row.auc_low == pytest.approx(auc([r for r in late if 3 <= r["user_clicks"] < 10]), abs=1e-9)
    assert row.auc_active == pytest.approx(auc([r for r in late if r["user_clicks"] >= 10]), abs=1e-9)
    assert row.log_loss == pytest.approx(log_loss(clicked, probability), abs=1e-9)
    assert row.calibration == pytest.approx(sum(probability) / sum(clicked), abs=1e-9)
    assert row.gauc == pytest.approx(gauc(late, expected=False), abs=1e-9)
    assert row.auc_expected == pytest.approx(expected_auc(late), abs=1e-9)
    assert row.gauc_expected == pytest.approx(gauc(late, expected=True), abs=1e-9)


def test_metrics_of_unexposed_candidates_agree_with_scikit_learn(
    rows: dict[str, Row], kept: Scores, folder: Path
) -> None:
    row, records = rows["wide-deep+"], scored_records(folder, "unexposed", kept.unexposed)
    predicted = sum(1 / (1 + math.exp(-record["score"])) for record in records)
    assert row.auc_unexposed == pytest.approx(expected_auc(records), abs=1e-9)
    assert row.auc_never_shown == pytest.approx(expected_auc([r for r in records if r["shown_before"] == 0]), abs=1e-9)
    assert row.gauc_unexposed == pytest.approx(gauc(records, expected=True), abs=1e-9)
    assert row.calibration_unexposed == pytest.approx(predicted / sum(r["probability"] for r in records), abs=1e-9)


def test_ranking_metrics_agree_with_scikit_learn(rows: dict[str, Row], kept: Scores, folder: Path) -> None:
    pages = defaultdict(list)
    for record in scored_records(folder, "candidates", kept.candidates):
        pages[record["page"]].append(record)
    clicks, ndcg, ndcg_level, level_1 = [], [], [], []
    for page in pages.values():
        scores = [[record["score"] for record in page]]
        top = sorted(page, key=lambda record: -record["score"])[:10]
        clicks.append(sum(record["probability"] * rank**-0.7 for rank, record in enumerate(top, 1)))
        level_1.append(sum(record["level"] == 1 for record in top) / 10)
        ndcg.append(ndcg_score([[record["probability"] for record in page]], scores, k=10))
        ndcg_level.append(ndcg_score([[2 ** (record["level"] - 1) - 1 for record in page]], scores, k=10))
    row = rows["wide-deep+"]
    assert list(pages) == [page for page in range(WORLD.pages // 2, WORLD.pages) if page % 16 == 0]
    assert row.expected_clicks == pytest.approx(np.mean(clicks), abs=1e-9)
    assert row.share_level_1 == pytest.approx(np.mean(level_1), abs=1e-9)
    assert row.ndcg == pytest.approx(np.mean(ndcg), abs=1e-9)
    assert row.ndcg_level == pytest.approx(np.mean(ndcg_level), abs=1e-9)


def test_tied_candidates_count_as_the_mean_over_their_orders() -> None:
    scores, p, level = [0.5, 0.5, 0.2, 0.5], [0.4, 0.1, 0.3, 0.2], [4, 1, 3, 2]
    candidates = Impressions(
        page=np.zeros(4, dtype=np.int64),
        item=np.arange(4),
        level=np.array(level, dtype=np.uint8),
        position=np.ones(4, dtype=np.int64),
        probability=np.array(p),
        shown_before=np.zeros(4, dtype=np.int64),
        clicked=np.zeros(4, dtype=np.bool_),
    )
    orders = [order for order in itertools.permutations(range(4)) if order[3] == 2]
    mean = sum(sum(p[i] * rank**-0.7 for rank, i in enumerate(order, 1)) for order in orders) / len(orders)
    assert ranking_metrics(candidates, np.array(scores))["expected_clicks"] == pytest.approx(mean)


def test_rows_are_in_order_and_have_their_reference_shares(rows: dict[str, Row]) -> None:
    assert list(rows) == ["position alone", "position × level", "lr", "wide-deep+", "reference learner", "oracle"]
    lower, upper = rows["position alone"].auc, rows["reference learner"].auc
    assert rows["lr"].share_of_reference == pytest.approx((rows["lr"].auc - lower) / (upper - lower))
    by_level = rows["position × level"].auc
    assert rows["lr"].share_above_level == pytest.approx((rows["lr"].auc - by_level) / (upper - by_level))
    assert rows["oracle"].auc_expected > rows["reference learner"].auc_expected > rows["position × level"].auc_expected
    assert rows["oracle"].calibration_unexposed == pytest.approx(1.0)
    assert rows["oracle"].ndcg == pytest.approx(1.0)


def test_baselines_are_the_click_rates_of_the_first_half(truth: GroundTruth, folder: Path) -> None:
    cells: dict[tuple[object, object], list[int]] = defaultdict(list)
    for record in scored_records(folder, "exposed", baseline_scores(truth)["position × level"].shown):
        cell = cells[record["position"], record["level"]]
        if not record["second_half"]:
            cell.append(int(bool(record["joined"])))
        else:
            rate = (sum(cell) + 0.1) / (len(cell) + 1)
            assert record["score"] == pytest.approx(math.log(rate / (1 - rate)))


def test_reference_learner_is_that_of_the_world_bench(truth: GroundTruth) -> None:
    log = read_log(truth.world)
    joined = dataclasses.replace(log, clicked=truth.shown.table(truth.shown.clicked))
    there, _ = run_reference_learner(truth.world, joined, LearnedParts())
    late = truth.shown.page >= truth.half
    here = 1 / (1 + np.exp(-reference_scores(truth).shown[late]))
    np.testing.assert_allclose(here, there[log.present & (np.arange(truth.pages) >= truth.half)[:, None]], rtol=1e-9)


def test_scoring_candidates_changes_nothing_of_what_is_learned(
    truth: GroundTruth, settings: Settings, tmp_path: Path
) -> None:
    config = trainer_config(settings, MODELS[1], ENCODER)
    measured, plain = ScoreRecordingTrainer(config, truth), Trainer(config)
    run = Replay(
        [str(truth.log)],
        tmp_path,
        settings.pipeline,
        config={},
        sinks={"measured": measured, "plain": plain},
        label=LexicalLabeller(),
    )
    run.run(flush=True)
    run.close()
    assert measured.trainer.weights_sha256() == plain.weights_sha256()
    exact = roc_auc_score(truth.shown.clicked, measured.scores().shown)
    # The report's AUC is binned (1,024 bins), coarse for the nearly equal scores of the first batches.
    assert plain.quality.summary().auc == pytest.approx(exact, abs=5e-4)


def test_candidate_is_scored_as_if_it_had_been_shown_first(
    truth: GroundTruth, settings: Settings, tmp_path: Path
) -> None:
    shown = truth.shown
    first = np.flatnonzero(shown.position == 1)
    fields = {field.name: getattr(shown, field.name)[first] for field in dataclasses.fields(shown)}
    imagined = dataclasses.replace(truth, unexposed=Impressions(**fields))
    scores = replay_models(imagined, tmp_path, settings, MODELS, ENCODER)[MODELS[1]]
    assert scores.unexposed is not None
    # The first pages have not shown every level, and candidates of one that was not borrow from the others.
    np.testing.assert_allclose(scores.unexposed[100:], scores.shown[first][100:], atol=1e-5)


def test_labels_that_differ_from_the_ground_truth_are_an_error(
    truth: GroundTruth, settings: Settings, tmp_path: Path
) -> None:
    other = dataclasses.replace(truth, shown=dataclasses.replace(truth.shown, clicked=~truth.shown.clicked))
    with pytest.raises(PrectrError, match="not the clicks of the ground truth"):
        replay_models(other, tmp_path, settings, MODELS[:1], ENCODER)


def test_a_missing_page_is_reported(truth: GroundTruth, settings: Settings) -> None:
    with pytest.raises(PrectrError, match=f"no score for {len(truth.shown.page)} of {len(truth.shown.page)} shown"):
        ScoreRecordingTrainer(trainer_config(settings, MODELS[0], ENCODER), truth).scores()


def test_results_are_cached_by_settings_and_code(
    rows: dict[str, Row], means: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Variant] = []

    def replay(truth: GroundTruth, run_dir: Path, settings: Settings, missing: list[Variant], *rest: object) -> None:
        asked.extend(missing)
        raise PrectrError("replayed again")

    monkeypatch.setattr(bench.world.run_world, "replay_models", replay)
    assert {row.name: row for row in measure_world(WORLD, MODELS, means).rows} == rows
    trainer = dataclasses.replace(means.settings.trainer, dense_lr=0.5)
    other = dataclasses.replace(means, settings=dataclasses.replace(means.settings, trainer=trainer))
    with pytest.raises(PrectrError, match="replayed again"):
        measure_world(WORLD, MODELS, other)
    assert asked == list(MODELS)
    with pytest.raises(PrectrError, match="replayed again"):
        measure_world(WORLD, MODELS, dataclasses.replace(means, encoder=tiny_encoder(1)))
    monkeypatch.setattr(bench.world.run_world, "model_code", lambda: "other code")
    with pytest.raises(PrectrError, match="replayed again"):
        measure_world(WORLD, MODELS, means)
    whatever = measure_world(WORLD, MODELS, dataclasses.replace(means, any_code=True))
    assert {row.name: row for row in whatever.rows} == rows


def test_paired_interval_is_that_of_the_paired_t_test(rows: dict[str, Row]) -> None:
    better, than = [0.72, 0.74, 0.71, 0.75], [0.71, 0.72, 0.71, 0.735]
    many = [
        msgspec.structs.replace(rows["lr"], model=model, seed=seed, auc=value)
        for model, values in (("after", better), ("before", than))
        for seed, value in enumerate(values)
    ]
    found, interval = paired_difference(many, "after", "before", "auc"), ttest_rel(better, than).confidence_interval()
    assert found is not None
    assert found.interval == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(np.mean(np.subtract(better, than)))
    alone = paired_difference([row for row in many if row.seed == 0], "after", "before", "auc")
    assert alone is not None
    assert alone.interval is None


def test_missing_scores_leave_metrics_out(truth: GroundTruth, kept: Scores) -> None:
    row = measure_row(truth, Scores(kept.shown), MODELS[1])
    assert row.auc_never_shown is None
    assert row.expected_clicks is None
    assert row.impressions_per_second is None


def test_command_line_omits_paths(folder: Path) -> None:
    flags = ["--json", str(folder), f"--work={folder}", "--seeds", "3", "--out", "x", "--stage-one", "y"]
    flags += ["--record", "z", "--models", ""]
    assert command_line("bench.quality", flags) == "python -m bench.quality --seeds 3 --models ''"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--models", "lr,depp"],
        ["--seeds", "0,one"],
        ["--seeds", "1,1"],
        ["--without", "insentive"],
        ["--set", "encoder_share"],
        ["--set", "level_source=logged"],
        ["--jobs", "0"],
        ["--curve", "--drift"],
        ["--curve", "--seeds", "0,1"],
        ["--sizes", "10k"],
        ["--recipe", '{"pears": 4000}'],
    ],
)
def test_invalid_flag_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match=arguments[0]):
        parse(arguments)
