"""`bench.quality` in pieces: who is held against whom, the record, the bootstrap, what is aimed for, the page."""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import bench.quality
from bench.drift import AFTER, BEFORE, WAYS, DriftBins, DriftRun
from bench.learning_curve import CurvePoint
from bench.quality import differences, main, parse
from bench.quality_aims import NO_DEBIAS, aims
from bench.quality_bootstrap import Resampled, WeightedAuc, resample
from bench.quality_contender import Contender, comparisons, contenders, trainer_config
from bench.quality_page import COMMANDS, write_page
from bench.quality_record import Record, changing, read_record, record_path
from bench.quality_rows import Row, paired
from bench.quality_scores import MeasuredTrainer, oracle_scores
from bench.quality_truth import Truth, make_log, read_truth
from bench.quality_world import Levels, Measured
from bench.stage_one import SLICES, LevelFigures, LevelSample
from model.encoder.folder import load_encoder
from model.encoder.pretrain import level_logits
from model.trainer import Trainer
from ops.config import Settings, load_settings
from state.errors import PrectrError
from stream.labeller import LexicalLabeller
from stream.records import Example, decode_page, encode_record
from stream.replay import Replay
from stream.simulator import WorldSettings
from tests.kit.encoder import tiny_encoder
from tests.kit.examples import random_examples

WORLD = WorldSettings(pages=200, seed=3, days=0.1, queries=30, items=1000, users=80)
SMALL = {"embedding_rows": 4096, "wide_rows": 4096, "batch_span": "1d", "pair_slots": 4096, "shown_slots": 4096}


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(None, SMALL, environ={})


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    folder = tmp_path_factory.mktemp("world")
    make_log(WORLD, folder)
    return read_truth(WORLD, folder)


def row(name: str, seed: int = 0, track: str = "T", auc: float = 0.7, **figures: float) -> Row:
    model, _, without = name.partition(" without ")
    values = dict.fromkeys(("gauc", "log_loss", "calibration", "auc_new", "auc_low", "auc_active"), auc)
    others = {"auc_never_shown": 0.5, "expected_clicks": 1.5, "share_level_1": 0.05, "share_of_reference": 0.8}
    values |= {"auc_expected": auc, "gauc_expected": auc} | others | figures
    return Row(model=model, without=(without,) if without else (), track=track, seed=seed, auc=auc, **values)


# --- contenders -------------------------------------------------------------------------------------------------------


def test_levels_of_what_is_scored_are_kept_from_every_model_in_track_t_and_told_in_track_g(settings: Settings) -> None:
    examples = random_examples(12, seed=5)
    others = [
        msgspec.structs.replace(example, levels=bytes(1 + level % 4 for level in example.levels))
        for example in examples
    ]
    for model in ("lr", "dnn", "wide-deep", "wide-deep+", "prectr", "prectr-v2"):
        for track, same in (("T", True), ("G", False)):
            config = trainer_config(settings, Contender(model=model, track=track), tiny_encoder())
            trainer = Trainer(config)
            trainer.consume(random_examples(64, seed=6), 0)
            equal = np.array_equal(trainer.score(examples, None), trainer.score(others, None))
            assert equal == same, f"{model} in track {track}"


def test_flags_name_contenders_each_once() -> None:
    flags = ["--models", "lr,prectr-v2", "--without", "incentive,debias", "--debias", "none,hinge,shift+soft"]
    names = [contender.name for contender in parse(flags).contenders]
    assert names == [
        "lr",
        "prectr-v2",
        "prectr-v2 without incentive",
        "prectr-v2 without debias",
        "prectr-v2 debias=hinge",
    ]
    full = parse(["--models", "prectr-v2", "--debias", "hinge", "--set", "encoder_share=1"]).contenders
    assert [contender.name for contender in full] == [
        "prectr-v2 encoder_share=1",
        "prectr-v2 debias=hinge encoder_share=1",
    ]
    every = parse(["--models", "", "--without", "all"]).contenders
    assert {one.without[0] for one in every} == {
        *("cold-start", "debias", "consistency", "two-stage", "incentive", "pretraining", "aggregates")
    }


def test_settings_of_a_contender_reach_its_trainer_and_no_other(settings: Settings) -> None:
    (contender,) = contenders(["prectr-v2"], "T", settings=[("encoder_share", "1"), ("debias", "hinge")])
    changed = trainer_config(settings, contender, Path("e"))
    plain = trainer_config(settings, Contender(model="prectr-v2", track="T"), Path("e"))
    assert (changed.encoder_share, changed.debias, changed.levels, changed.encoder) == (1.0, "hinge", "inferred", "e")
    assert (plain.encoder_share, plain.debias) == (0.02, "shift+soft")
    assert (changed.embedding_rows, changed.wide_rows) == (4096, 4096)
    assert trainer_config(settings, Contender(model="lr", track="G"), Path("e")).levels == "logged"
    (uneven,) = contenders(["prectr-v2"], "T", settings=[("graded", "low")])
    assert trainer_config(settings, uneven, Path("e")).encoder == "e-graded-low"


def test_contenders_are_held_against_what_they_differ_from_in_one_thing() -> None:
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


def test_being_told_of_exposure_is_held_against_not_being_told() -> None:
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


def test_bootstrap_draws_users_with_all_they_saw(truth: Truth) -> None:
    scores = oracle_scores(truth)
    drawn = resample(truth, scores, Contender(model="oracle", track="T"), resamples=3)
    late = np.flatnonzero(truth.shown.page >= truth.half)
    users = truth.user[truth.shown.page[late]]
    known = np.unique(users)
    rng = np.random.default_rng([WORLD.seed, 23])
    for auc in drawn.auc:
        shown = np.concatenate([late[users == known[at]] for at in rng.integers(len(known), size=len(known))])
        p, score = truth.shown.probability[shown], scores.shown[shown]
        wanted = roc_auc_score(np.repeat([1, 0], len(p)), np.tile(score, 2), sample_weight=np.concatenate([p, 1 - p]))
        assert auc == pytest.approx(wanted, abs=1e-6)


def test_interval_over_users_is_of_the_mean_over_seeds() -> None:
    rng = np.random.default_rng(2)
    drawn = {(name, seed): rng.random(200) for name in ("a", "b") for seed in (0, 1)}
    resampled = [Resampled(name=name, track="T", seed=seed, auc=auc.tolist()) for (name, seed), auc in drawn.items()]
    rows = [row(name, seed) for name, seed in drawn]
    found = paired(rows, "a", "b", "auc_expected", resampled)
    means = (drawn["a", 0] - drawn["b", 0] + drawn["a", 1] - drawn["b", 1]) / 2
    assert found is not None
    assert found.users == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    without = paired(rows, "a", "b", "auc_expected", resampled[1:])
    assert without is not None
    assert without.users is None


@pytest.mark.parametrize(
    ("steps", "resolved"),
    [((0.004, 0.005, 0.006), True), ((0.0007, 0.0008, 0.0009), False), ((-0.01, 0.02, 0.03), False)],
)
def test_step_is_resolved_from_a_thousandth_on_where_the_interval_leaves_zero_out(
    steps: Sequence[float], resolved: bool
) -> None:
    rows = [row("prectr-v2", seed, auc=0.7 + step) for seed, step in enumerate(steps)]
    rows += [row("prectr", seed) for seed in range(3)]
    (found,) = [one for one in differences(rows) if one.figure == "auc_expected"]
    assert found.resolved == resolved


def test_tracks_are_never_held_against_each_other() -> None:
    rows = [row("prectr-v2", track="T", auc=0.71), row("prectr-v2", track="G", auc=0.75)]
    rows += [row("wide-deep+", track="T", auc=0.70), row("wide-deep+", track="G", auc=0.74)]
    found = [(one.track, round(one.mean, 6)) for one in differences(rows) if one.figure == "auc"]
    assert found == [("T", 0.01), ("G", 0.01)]


# --- aims -------------------------------------------------------------------------------------------------------------


def reached(rows: Sequence[Row]) -> dict[str, bool | None]:
    forms = [
        paired(rows, "prectr-v2", NO_DEBIAS, figure)
        for figure in ("auc_never_shown", "expected_clicks", "share_level_1", "auc_expected")
    ]
    return {one.what: one.reached for one in aims(rows, differences(rows), [one for one in forms if one], [], {})}


@pytest.mark.parametrize(
    ("figures", "earns"),
    [
        ({"auc_never_shown": 0.54, "expected_clicks": 1.51, "share_level_1": 0.02, "auc": 0.6995}, True),
        ({"auc_never_shown": 0.52, "expected_clicks": 1.51, "share_level_1": 0.02}, False),
        ({"auc_never_shown": 0.54, "expected_clicks": 1.49, "share_level_1": 0.02}, False),
        ({"auc_never_shown": 0.54, "expected_clicks": 1.51, "share_level_1": 0.06}, False),
        ({"auc_never_shown": 0.54, "expected_clicks": 1.51, "share_level_1": 0.02, "auc": 0.698}, False),
    ],
)
def test_debias_earns_its_place_by_all_four_figures(figures: dict[str, float], earns: bool) -> None:
    rows = [row(NO_DEBIAS), row("prectr-v2", **figures)]
    assert reached(rows)["debias earns its place: shift+soft"] is earns


def test_what_has_not_run_is_not_judged() -> None:
    assert set(reached([]).values()) == {None}
    one_seed = reached([row("prectr"), row("prectr-v2", auc=0.72)])
    assert one_seed["prectr < prectr-v2, resolved"] is None
    three = [row("prectr", seed) for seed in range(3)]
    three += [row("prectr-v2", seed, auc=0.72 + seed / 1000) for seed in range(3)]
    assert reached(three)["prectr < prectr-v2, resolved"] is True
    assert reached(three)["share of the reference at least 0.85"] is False


@pytest.mark.parametrize(
    ("auc", "less_teacher", "within", "expected"),
    [
        (0.92, -0.01, 0.93, [True, True, True]),
        (0.92, -0.03, 0.90, [False, True, False]),
        (0.88, -0.02, 0.92, [True, False, True]),
    ],
)
def test_the_student_is_held_against_its_teacher_and_minilm(
    auc: float, less_teacher: float, within: float, expected: list[bool]
) -> None:
    def figure(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.01, "high": value + 0.01}

    rows = {
        "student": {"auc": figure(auc), "within_query": figure(within), "ndcg": figure(0.9)},
        "minilm cosine": {"auc": figure(0.9), "within_query": figure(0.935), "ndcg": figure(0.893)},
    }
    found = {
        "rows": rows,
        "student_less_teacher_auc": figure(less_teacher),
        "student_less_minilm_auc": figure(auc - 0.9),
    }
    chorus = [one for one in aims([], [], [], [], found) if one.what.startswith("Chorus")]
    assert [one.reached for one in chorus] == expected
    assert chorus[0].found == f"{less_teacher:+.3f} ({less_teacher - 0.01:+.3f} … {less_teacher + 0.01:+.3f})"


# --- the record and the page ------------------------------------------------------------------------------------------


def test_what_is_measured_again_takes_the_place_of_what_was(tmp_path: Path) -> None:
    for auc in (0.70, 0.71):
        with changing(tmp_path, 200, 0.1) as record:
            record.add(Measured(rows=[row("lr", auc=auc), row("dnn")], resampled=[], levels=[]))
            record.add_curve([CurvePoint(pages=50, row=row("lr", auc=auc))])
    with changing(tmp_path, 200, 0.1) as record:
        record.add(Measured(rows=[row("lr", seed=1), row("lr", track="G")], resampled=[], levels=[]))
    record = read_record(tmp_path, 200, 0.1)
    found = [(one.track, one.name, one.seed, one.auc) for one in record.rows]
    assert found == [("T", "lr", 0, 0.71), ("T", "dnn", 0, 0.7), ("T", "lr", 1, 0.7), ("G", "lr", 0, 0.7)]
    assert [point.row.auc for point in record.curve] == [0.71]
    assert read_record(tmp_path, 100, 0.1).rows == []


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"pages": 1, "days": 1, "format": 99}'])
def test_record_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    record_path(tmp_path, 200, 0.1).write_bytes(content)
    with pytest.raises(PrectrError, match="another --record"):
        read_record(tmp_path, 200, 0.1)


def test_page_of_nothing_names_the_command_of_every_part() -> None:
    text = write_page(Record(pages=60_000, days=14), [], None)
    for part in ("headline", "ablations", "exposure", "debias", "full", "G", "curve", "drift", "relevance"):
        assert f"`{COMMANDS[part]}`" in text


def drifted(name: str) -> DriftRun:
    def bins(*after: float) -> DriftBins:
        return DriftBins(
            impressions=[10] * (BEFORE + AFTER),
            entropy=[1.0] * (BEFORE + AFTER),
            loss={way: [1.1] * BEFORE + [loss] * AFTER for way, loss in zip(WAYS, after, strict=True)},
        )

    return DriftRun(name=name, track="T", seed=0, changed=bins(1.2, 1.3, 1.5), others=bins(1.1, 1.1, 1.1))


def test_page_shows_every_part_and_plots_stand_beside_it(tmp_path: Path) -> None:
    recipe = {"seed": 1000, "made_up": 25_000, "pairs": 4000, "wrong": 0.15}
    record = Record(pages=60_000, days=14, stage_one={"recipe": recipe})
    models = ["position alone", "lr", "prectr", "prectr-v2", NO_DEBIAS, "prectr-v2 without incentive"]
    models += ["prectr-v2 debias=hinge", "prectr-v2 encoder_share=1", "prectr-v2 graded=low", "reference learner"]
    models += ["prectr-v2 exposure=off"]
    for seed in range(2):
        for track in "TG":
            rows = [row(name, seed, track, auc=0.7 + place / 1000) for place, name in enumerate(models)]
            figures = [LevelFigures(slice=name, accuracy=0.7, log_loss=0.8, showings=9) for name in SLICES]
            levels = [Levels(name="", track=track, seed=seed, figures=figures, known_queries=0.02)]
            record.add(Measured(rows=rows, resampled=[], levels=levels if track == "T" else []))
    record.add_curve([CurvePoint(pages=pages, row=row("prectr-v2")) for pages in (10, 20)])
    record.add_drift([drifted("prectr-v2")])
    record.add_part("python -m bench.quality --seeds 0,1", 12.0)
    out = tmp_path / "results" / "page.md"
    text = write_page(record, differences(record.rows), out)
    assert out.read_text(encoding="utf-8") == text
    left = [part for part in COMMANDS if f"`{COMMANDS[part]}`" in text]
    assert left == ["relevance"]
    plots = {path.name: path.read_bytes() for path in out.parent.glob("*.svg")}
    assert set(plots) == {"page-models.svg", "page-curve.svg", "page-drift.svg"}
    assert all(f"({name})" in text for name in plots)
    assert "| lr | 0.7010 / 0.7010 |" in text
    assert "| won back, online | | 75% |" in text
    assert "- *drift: 80% of the excess on changed queries won back within 5,000 pages*: " in text
    beside = text.split("## Beside the paper's table")[1].split("## ")[0]
    assert "| lr | 0.7010 / 0.7010 | 0.7010 / 0.7010 |" in beside
    assert beside.count(" | 0.6795 |  |\n") == 1
    assert beside.count(" | 0.7674 | 0.6933 |\n") == 1
    assert f"| {NO_DEBIAS} | 0.7040 / 0.7040 |" in beside
    assert "graded" not in beside
    assert "then 4,000 graded pairs drawn evenly over candidates, 15% of their levels off by one" in text
    assert "Won back by prectr-v2, online: **75%** (75%; 75%)" in text
    write_page(record, differences(record.rows), out)
    assert {path.name: path.read_bytes() for path in out.parent.glob("*.svg")} == plots


def test_page_tells_of_rows_that_do_not_go_together() -> None:
    rows = [row("lr", impressions_per_second=9.0), row("dnn", impressions_per_second=9.0)]
    same = [msgspec.structs.replace(one, code="aa", stage_one="bb") for one in rows]
    text = write_page(Record(pages=1, days=1, rows=same), [], None)
    assert "states of the code" not in text
    assert "stage-one encoders" not in text
    mixed = [same[0], msgspec.structs.replace(same[1], code="cc", stage_one="dd")]
    text = write_page(Record(pages=1, days=1, rows=mixed), [], None)
    assert "come from 2 states of the code** (aa, cc)" in text
    assert "read with 2 stage-one encoders** (bb, dd): " in text


def test_command_measures_in_pieces_and_writes_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench.quality, "SETTINGS", SMALL)
    world = ["--pages", "200", "--days", "0.1", "--queries", "30", "--items", "1000", "--users", "80", "--seeds", "3"]
    common = [*world, "--stage-one", str(tiny_encoder()), "--work", str(tmp_path), "--out", str(tmp_path / "page.md")]

    def run(*flags: str) -> list[tuple[str, str]]:
        monkeypatch.setattr(sys, "argv", ["bench.quality", *common, *flags, "--json", str(tmp_path / "found.json")])
        main()
        result = msgspec.json.decode((tmp_path / "found.json").read_bytes())
        return [(one["model"], one["track"]) for one in result["rows"]]

    between = ["position alone", "position × level", "prectr-v2", "reference learner", "oracle"]
    assert run("--models", "prectr-v2") == [(name, "T") for name in between]
    assert run("--models", "lr", "--track", "G")[2] == ("lr", "G")

    def again(*arguments: object, **named: object) -> None:
        raise AssertionError("replayed again")

    with monkeypatch.context() as patched:
        patched.setattr("bench.quality_world.replay_models", again)
        assert run("--models", "prectr-v2") == [(name, "T") for name in between]
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    record = read_record(tmp_path, 200, 0.1)
    assert {(one.model, one.track) for one in record.rows} >= {("prectr-v2", "T"), ("lr", "G")}
    assert [levels.name for levels in record.levels] == ["", "prectr-v2"]
    assert {one.stage_one for one in record.rows} == {"", load_encoder(tiny_encoder()).sha256[:12]}
    assert f"| after joint training, prectr-v2 | {record.levels[1].figures[0].accuracy:.3f} |" in page
    assert str(tmp_path) not in page
    assert capsys.readouterr().out.endswith(page + "\n")


def test_damage_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, status in ((["--stage-one", str(tmp_path)], 1), (["--relevance", str(tmp_path / "no.json")], 2)):
        monkeypatch.setattr(sys, "argv", ["bench.quality", *flags, "--work", str(tmp_path), "--out", "x"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == status
        assert "bench.quality: " in capsys.readouterr().err


def test_levels_after_joint_training_are_those_of_the_encoder_as_it_has_become(
    truth: Truth, settings: Settings, tmp_path: Path
) -> None:
    full = (("debias", "hinge"), ("encoder_share", "1"), ("exposure", "off"))
    measured = _replayed(truth, settings, tmp_path, Contender(model="prectr-v2", track="T", settings=full))
    encoder = load_encoder(tiny_encoder())
    learned = {name: tensor.clone() for name, tensor in measured.trainer._model.weights().items()}
    of_encoder = {name.removeprefix("dense.encoder."): tensor for name, tensor in learned.items()}
    own = encoder.network.state_dict()
    before = level_logits(encoder.network, encoder.tokenizer, LevelSample(truth).pairs)
    state = own | {name: tensor for name, tensor in of_encoder.items() if name in own}
    state |= {f"levels.{part}": learned[f"dense.level.{part}"] for part in ("weight", "bias")}
    encoder.network.load_state_dict(state)
    after = level_logits(encoder.network, encoder.tokenizer, LevelSample(truth).pairs)
    found = measured.scores().levels
    assert found is not None
    np.testing.assert_allclose(found, after.softmax(dim=1).numpy(), atol=1e-5)
    assert not np.allclose(found, before.softmax(dim=1).numpy(), atol=1e-3)


def test_levels_after_joint_training_rest_on_what_their_own_query_has_shown(
    truth: Truth, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last: dict[str, Example] = {}
    consume = MeasuredTrainer.consume

    def seen(self: MeasuredTrainer, examples: Sequence[Example], line: int) -> None:
        last.update({example.query: example for example in examples})
        consume(self, examples, line)

    monkeypatch.setattr(MeasuredTrainer, "consume", seen)
    measured = _replayed(truth, settings, tmp_path, Contender(model="prectr-v2", track="T"))
    found, sample = measured.scores().levels, LevelSample(truth)
    assert found is not None
    of_others = 0
    for n in range(0, len(found), len(found) // 20):
        query, title = sample.pairs[n]
        place = truth.world.catalogue.item_ids[sample.item[n]]
        for other in (query, next(iter(last))):
            page = decode_page(last[other].page)
            page.items = [msgspec.structs.replace(page.items[0], item_id=place, title=title)]
            one = msgspec.structs.replace(
                last[other], query=query, labels=b"\0", levels=b"\1", page=msgspec.Raw(encode_record(page))
            )
            told = measured.trainer.explain([one], position=1).levels[0]
            if other == query:
                np.testing.assert_allclose(found[n], told, atol=1e-4)
            else:
                of_others += not np.allclose(found[n], told, atol=1e-4)
    assert of_others > 10


def _replayed(truth: Truth, settings: Settings, run_dir: Path, contender: Contender) -> MeasuredTrainer:
    measured = MeasuredTrainer(trainer_config(settings, contender, tiny_encoder()), truth)
    run = Replay(
        [str(truth.log)], run_dir, settings.pipeline, config={}, sinks={"one": measured}, label=LexicalLabeller()
    )
    run.run(flush=True)
    run.close()
    return measured
