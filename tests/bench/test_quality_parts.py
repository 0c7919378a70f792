"""`bench.quality`: variants and their comparisons, the bootstrap, levels after joint training."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.quality.benchmark import paired_differences, parse
from bench.quality.bootstrap import BootstrapResult, WeightedAuc, bootstrap_auc
from bench.quality.rows import paired_difference
from bench.quality.scores import ScoreRecordingTrainer, oracle_scores
from bench.quality.variants import Variant, comparisons, make_variants, trainer_config
from bench.world.ground_truth import GroundTruth, make_log, read_truth
from bench.world.stage_one import LevelSample
from prectr.model.text.encoder.artifact import load_encoder
from prectr.model.text.encoder.pretrain import predict_level_logits
from prectr.model.training.trainer import Trainer
from prectr.ops.settings.loader import Settings, load_settings
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.records import Example, decode_page, encode_record
from prectr.stream.replay.runner import Replay
from prectr.stream.simulator import WorldSettings
from tests.bench.quality_rows import SMALL, row
from tests.kit.models.encoder import tiny_encoder
from tests.kit.models.examples import random_examples

WORLD = WorldSettings(pages=200, seed=3, days=0.1, queries=30, items=1000, users=80)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(None, SMALL, environ={})


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    folder = tmp_path_factory.mktemp("world")
    make_log(WORLD, folder)
    return read_truth(WORLD, folder)


# --- variants -------------------------------------------------------------------------------------------------------


def test_levels_are_hidden_from_models_in_track_t_and_given_in_track_g(settings: Settings) -> None:
    examples = random_examples(12, seed=5)
    others = [
        msgspec.structs.replace(example, levels=bytes(1 + level % 4 for level in example.levels))
        for example in examples
    ]
    for model in ("lr", "dnn", "wide-deep", "wide-deep+", "prectr", "prectr-v2"):
        for track, same in (("T", True), ("G", False)):
            config = trainer_config(settings, Variant(model=model, track=track), tiny_encoder())
            trainer = Trainer(config)
            trainer.consume(random_examples(64, seed=6), 0)
            equal = np.array_equal(trainer.score(examples, None), trainer.score(others, None))
            assert equal == same, f"{model} in track {track}"


def test_flags_name_variants_each_once() -> None:
    flags = [
        "--models",
        "lr,prectr-v2",
        "--without",
        "incentive,debias",
        "--debias",
        "none,hinge,prior_adjustment+soft",
    ]
    names = [variant.name for variant in parse(flags).variants]
    assert names == [
        "lr",
        "prectr-v2",
        "prectr-v2 without incentive",
        "prectr-v2 without debias",
        "prectr-v2 debias=hinge",
    ]
    full = parse(["--models", "prectr-v2", "--debias", "hinge", "--set", "encoder_share=1"]).variants
    assert [variant.name for variant in full] == [
        "prectr-v2 encoder_share=1",
        "prectr-v2 debias=hinge encoder_share=1",
    ]
    every = parse(["--models", "", "--without", "all"]).variants
    assert {one.without[0] for one in every} == {
        *("cold-start", "debias", "consistency", "two-stage", "incentive", "pretraining", "aggregates")
    }


def test_settings_of_a_variant_reach_its_trainer_and_no_other(settings: Settings) -> None:
    (variant,) = make_variants(["prectr-v2"], "T", settings=[("encoder_share", "1"), ("debias", "hinge")])
    changed = trainer_config(settings, variant, Path("e"))
    plain = trainer_config(settings, Variant(model="prectr-v2", track="T"), Path("e"))
    assert (changed.encoder_share, changed.debias, changed.level_source, changed.encoder) == (
        1.0,
        "hinge",
        "inferred",
        "e",
    )
    assert (plain.encoder_share, plain.debias) == (0.02, "prior_adjustment+soft")
    assert (changed.embedding_rows, changed.wide_rows) == (4096, 4096)
    assert trainer_config(settings, Variant(model="lr", track="G"), Path("e")).level_source == "logged"
    (uneven,) = make_variants(["prectr-v2"], "T", settings=[("graded", "low")])
    assert trainer_config(settings, uneven, Path("e")).encoder == "e-graded-low"


def test_variants_are_compared_where_they_differ_in_one_thing() -> None:
    names = ["lr", "dnn", "prectr", "prectr-v2", "prectr-v2 without incentive", "prectr-v2 without debias"]
    names += ["prectr-v2 debias=hinge", "prectr-v2 encoder_share=1", "prectr-v2 debias=hinge encoder_share=1"]
    assert comparisons([*names, "reference learner", "position alone", "oracle"]) == [
        ("dnn", "lr"),
        ("prectr", "dnn"),
        ("prectr-v2", "prectr"),
        ("prectr-v2", "prectr-v2 without incentive"),
        ("prectr-v2", "prectr-v2 without debias"),
        ("prectr-v2 debias=hinge", "prectr-v2 without debias"),
        ("prectr-v2", "prectr-v2 debias=hinge"),
        ("prectr-v2 encoder_share=1", "prectr-v2"),
        ("prectr-v2 encoder_share=1", "prectr-v2 debias=hinge encoder_share=1"),
    ]


def test_exposure_on_is_compared_with_exposure_off() -> None:
    names = ["wide-deep+", "prectr-v2", "wide-deep+ exposure=on", "prectr-v2 exposure=off"]
    assert comparisons(names) == [
        ("prectr-v2", "wide-deep+"),
        ("prectr-v2", "prectr-v2 exposure=off"),
        ("prectr-v2 exposure=off", "wide-deep+"),
        ("wide-deep+ exposure=on", "wide-deep+"),
        ("prectr-v2", "wide-deep+ exposure=on"),
    ]


# --- differences ------------------------------------------------------------------------------------------------------


def test_weighted_auc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    scores, p = np.round(rng.random(300), 1), rng.random(300)
    weights = rng.integers(0, 4, 300).astype(np.float64)
    twice = np.concatenate([weights * p, weights * (1 - p)])
    wanted = roc_auc_score(np.repeat([1, 0], 300), np.tile(scores, 2), sample_weight=twice)
    assert WeightedAuc(scores, p)(weights) == pytest.approx(wanted)


def test_bootstrap_draws_users_with_all_their_impressions(truth: GroundTruth) -> None:
    scores = oracle_scores(truth)
    drawn = bootstrap_auc(truth, scores, Variant(model="oracle", track="T"), resamples=3)
    late = np.flatnonzero(truth.shown.page >= truth.half)
    users = truth.user[truth.shown.page[late]]
    known = np.unique(users)
    rng = np.random.default_rng([WORLD.seed, 23])
    for auc in drawn.auc:
        shown = np.concatenate([late[users == known[at]] for at in rng.integers(len(known), size=len(known))])
        p, score = truth.shown.probability[shown], scores.shown[shown]
        wanted = roc_auc_score(np.repeat([1, 0], len(p)), np.tile(score, 2), sample_weight=np.concatenate([p, 1 - p]))
        assert auc == pytest.approx(wanted, abs=1e-6)


def test_user_interval_is_of_the_mean_over_seeds() -> None:
    rng = np.random.default_rng(2)
    drawn = {(name, seed): rng.random(200) for name in ("a", "b") for seed in (0, 1)}
    resampled = [
        BootstrapResult(name=name, track="T", seed=seed, auc=auc.tolist()) for (name, seed), auc in drawn.items()
    ]
    rows = [row(name, seed) for name, seed in drawn]
    found = paired_difference(rows, "a", "b", "auc_expected", resampled)
    means = (drawn["a", 0] - drawn["b", 0] + drawn["a", 1] - drawn["b", 1]) / 2
    assert found is not None
    assert found.user_interval == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    without = paired_difference(rows, "a", "b", "auc_expected", resampled[1:])
    assert without is not None
    assert without.user_interval is None


@pytest.mark.parametrize(
    ("steps", "resolved"),
    [((0.004, 0.005, 0.006), True), ((0.0007, 0.0008, 0.0009), False), ((-0.01, 0.02, 0.03), False)],
)
def test_difference_is_resolved_from_a_thousandth_if_its_interval_excludes_zero(
    steps: Sequence[float], resolved: bool
) -> None:
    rows = [row("prectr-v2", seed, auc=0.7 + step) for seed, step in enumerate(steps)]
    rows += [row("prectr", seed) for seed in range(3)]
    (found,) = [one for one in paired_differences(rows) if one.metric == "auc_expected"]
    assert found.resolved == resolved


def test_tracks_are_never_compared_with_each_other() -> None:
    rows = [row("prectr-v2", track="T", auc=0.71), row("prectr-v2", track="G", auc=0.75)]
    rows += [row("wide-deep+", track="T", auc=0.70), row("wide-deep+", track="G", auc=0.74)]
    found = [(one.track, round(one.mean, 6)) for one in paired_differences(rows) if one.metric == "auc"]
    assert found == [("T", 0.01), ("G", 0.01)]


# --- levels after joint training --------------------------------------------------------------------------------------


def test_levels_after_joint_training_are_those_of_the_trained_encoder(
    truth: GroundTruth, settings: Settings, tmp_path: Path
) -> None:
    full = (("debias", "hinge"), ("encoder_share", "1"), ("exposure", "off"))
    measured = _replayed(truth, settings, tmp_path, Variant(model="prectr-v2", track="T", settings=full))
    encoder = load_encoder(tiny_encoder())
    learned = {name: tensor.clone() for name, tensor in measured.trainer._model.weights().items()}
    of_encoder = {name.removeprefix("dense.encoder."): tensor for name, tensor in learned.items()}
    own = encoder.network.state_dict()
    before = predict_level_logits(encoder.network, encoder.tokenizer, LevelSample(truth).pairs)
    state = own | {name: tensor for name, tensor in of_encoder.items() if name in own}
    state |= {f"levels.{part}": learned[f"dense.relevance_head.{part}"] for part in ("weight", "bias")}
    encoder.network.load_state_dict(state)
    after = predict_level_logits(encoder.network, encoder.tokenizer, LevelSample(truth).pairs)
    found = measured.scores().levels
    assert found is not None
    np.testing.assert_allclose(found, after.softmax(dim=1).numpy(), atol=1e-5)
    assert not np.allclose(found, before.softmax(dim=1).numpy(), atol=1e-3)


def test_levels_after_joint_training_depend_on_the_exposure_of_their_own_query(
    truth: GroundTruth, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last: dict[str, Example] = {}
    consume = ScoreRecordingTrainer.consume

    def seen(self: ScoreRecordingTrainer, examples: Sequence[Example], watermark: int) -> None:
        last.update({example.query: example for example in examples})
        consume(self, examples, watermark)

    monkeypatch.setattr(ScoreRecordingTrainer, "consume", seen)
    measured = _replayed(truth, settings, tmp_path, Variant(model="prectr-v2", track="T"))
    found, sample = measured.scores().levels, LevelSample(truth)
    assert found is not None
    of_others = 0
    for n in range(0, len(found), len(found) // 20):
        query, title = sample.pairs[n]
        item_id = truth.world.catalogue.item_ids[sample.item[n]]
        for other in (query, next(iter(last))):
            page = decode_page(last[other].page)
            page.items = [msgspec.structs.replace(page.items[0], item_id=item_id, title=title)]
            one = msgspec.structs.replace(
                last[other], query=query, labels=b"\0", levels=b"\1", page=msgspec.Raw(encode_record(page))
            )
            levels = measured.trainer.explain([one], position=1).levels[0]
            if other == query:
                np.testing.assert_allclose(found[n], levels, atol=1e-4)
            else:
                of_others += not np.allclose(found[n], levels, atol=1e-4)
    assert of_others > 10


def _replayed(truth: GroundTruth, settings: Settings, run_dir: Path, variant: Variant) -> ScoreRecordingTrainer:
    measured = ScoreRecordingTrainer(trainer_config(settings, variant, tiny_encoder()), truth)
    run = Replay(
        [str(truth.log)], run_dir, settings.pipeline, config={}, sinks={"one": measured}, label=LexicalLabeller()
    )
    run.run(flush=True)
    run.close()
    return measured
