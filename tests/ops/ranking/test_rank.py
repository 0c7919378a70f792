"""`prectr rank`: the scores of the trainer on the page that the stages would have made, and what is behind them."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.special import expit

from prectr.model.training.trainer import Trainer
from prectr.ops.cli.main import main
from prectr.ops.cli.remedies import with_flags
from prectr.ops.ranking.result import Ranked, Ranking
from prectr.ops.ranking.service import RankQuery, RunRanker, RunRef
from prectr.ops.settings.loader import Settings
from prectr.ops.training.replay import run_replay
from prectr.state.errors import CheckpointError, Remedy, StateError, UsageError
from prectr.state.identity import IDENTITY_KEY, StoreIdentity
from prectr.state.store import Store
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Item
from prectr.stream.records import decode_example
from prectr.stream.replay.run_checkpoint import list_checkpoints
from testkit.command import write_log
from tests.kit.models.encoder import tiny_encoder
from tests.kit.models.examples import small_config
from tests.kit.stages.events import DAY, MINUTE, T, click, page
from tests.kit.stages.replays import replay_to_end

PIPELINE = PipelineConfig(partitions=2)
MODELS = ("prectr-v2", "wide-deep+")
ASKED = T + 30 * DAY
"""Long after the last page: all of them have been counted."""
Run = Callable[..., tuple[int, str, str]]


def _lines() -> list[bytes]:
    """Sixty pages of three queries for four users; the second item, of level 3, is clicked most."""
    lines = []
    random = np.random.default_rng(5)
    for number in range(60):
        user, ts = f"u{number % 4}", T + number * 10 * MINUTE
        names = [f"i{each}" for each in random.choice(20, 3, replace=False)]
        lines.append(
            page(f"r{number}", user, ts, query=f"query {number % 3}", items=names, levels=[1 + number % 2, 3, 4])
        )
        lines += [
            click(f"r{number}", user, ts + 1000 * place, name)
            for place, (name, rate) in enumerate(zip(names, (0.1, 0.7, 0.3), strict=True), 1)
            if random.random() < rate
        ]
    return lines


ITEMS = [Item(f"i{number}", f"title of i{number}", None, 7.5 * number, "cables", None, None) for number in range(6)]


def _settings(**more: object) -> Settings:
    trainer = small_config(
        model="prectr-v2", batch_pages=10, embedding_scale=0.3, embedding_lr=0.3, dense_lr=0.02, **more
    )
    return Settings(pipeline=PIPELINE, trainer=trainer)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, and a replay of it with two models."""
    folder = tmp_path_factory.mktemp("made")
    log = write_log(folder / "log.jsonl", _lines())
    run_replay([str(log)], folder / "run", _settings(), models=MODELS)
    return folder


def _trainer(run_dir: Path, model: str) -> Trainer:
    """The run's newest, opened by itself."""
    settings = _settings()
    trainer = Trainer(replace(settings.trainer, model=model))
    trainer.load(list_checkpoints(run_dir / "checkpoints")[0] / "sinks" / model)
    return trainer


def _ranked(made: Path, **more: Any) -> Ranking:
    question = {"query": " QUERY  1", "user_id": "u1", "items": ITEMS, "as_of": ASKED} | more
    choice = RunRef(run_dir=question.pop("run_dir", made / "run"), **question.pop("choice", {}))
    return RunRanker(choice).rank(RankQuery(**question))


def _log_odds(ranking: Ranking) -> dict[str, float]:
    return {each.item_id: each.log_odds for each in ranking.ranked}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("position", [1, 3])
def test_scores_are_the_trainers_on_the_page_that_the_stages_make(
    made: Path, tmp_path: Path, model: str, position: int
) -> None:
    """The oracle: the same page at the end of the log, through both stages, scored by the run's trainer."""
    shown = [msgspec.to_builtins(item) for item in ITEMS]
    shown = [{name: value for name, value in item.items() if value is not None} for item in shown]
    event = {"type": "impression", "request_id": "x", "user_id": "u1", "query": " QUERY  1", "ts": ASKED}
    last = json.dumps(event | {"items": shown}).encode()
    collected = replay_to_end(
        [write_log(tmp_path / "longer.jsonl", [*_lines(), last])], tmp_path / "run", config=PIPELINE
    )
    example = decode_example(collected.emitted[-1])
    assert example.request_id == "x"
    assert sum(example.query_stats) > 50
    assert sum(example.user_stats) > 40
    expected = _trainer(made / "run", model).score([example], position)
    ranking = _ranked(made, choice={"model": model}, position=position)
    assert _log_odds(ranking) == pytest.approx(
        dict(zip([item.item_id for item in ITEMS], expected.tolist(), strict=True)), abs=1e-6
    )
    assert np.ptp(expected) > 0.05
    assert tuple(ranking.query_preference.impressions.values()) == example.query_stats[:4]
    assert tuple(ranking.query_preference.clicks.values()) == example.query_stats[4:]
    assert tuple(ranking.user_preference.impressions.values()) == example.user_stats[:4]
    assert tuple(ranking.user_preference.clicks.values()) == example.user_stats[4:]
    assert ranking.user_preference.past_clicks == example.user_activity


def test_the_ranking_is_by_falling_click_probability_and_adds_up(made: Path) -> None:
    ranking = _ranked(made)
    probabilities = [each.click_probability for each in ranking.ranked]
    assert probabilities == sorted(probabilities, reverse=True)
    assert [each.rank for each in ranking.ranked] == [1, 2, 3, 4, 5, 6]
    assert {each.item_id for each in ranking.ranked} == {item.item_id for item in ITEMS}
    for each in ranking.ranked:
        assert each.click_probability == pytest.approx(float(expit(each.log_odds)))
        assert sum(each.level_probabilities.values()) == pytest.approx(1.0, abs=1e-6)
        assert each.click_given_level is not None
        mixed = sum(
            each.level_probabilities[level] * each.click_given_level[level] for level in each.level_probabilities
        )
        assert each.click_probability == pytest.approx(mixed, abs=1e-6)
        assert each.level_probabilities[str(each.relevance_level)] == max(each.level_probabilities.values())
        assert each.incentives is not None
        assert each.incentive == each.incentives[str(each.relevance_level)] != 0.0
        assert each.relevance_source == "inferred"


def test_it_prints_the_preferred_level_of_user_and_query(made: Path) -> None:
    """Items of level 3 were clicked seven times of ten, those of other levels far less."""
    ranking = _ranked(made)
    assert ranking.user_preference.preferred == 3
    assert ranking.query_preference.preferred == 3
    rates = {
        level: ranking.query_preference.clicks[level] / max(ranking.query_preference.impressions[level], 1)
        for level in "1234"
    }
    assert max(rates, key=lambda level: rates[level]) == "3"
    assert ranking.query_preference.rates["3"] == max(ranking.query_preference.rates.values())


def test_more_candidates_than_a_page_holds_score_as_they_do_alone(made: Path) -> None:
    many = [Item(f"i{number}", f"title {number % 40}", None, None, None, None, None) for number in range(450)]
    ranking = _ranked(made, items=many)
    assert len(ranking.ranked) == 450
    alone = _log_odds(_ranked(made, items=[many[7], many[230], many[449]]))
    everyone = _log_odds(ranking)
    assert {name: everyone[name] for name in alone} == pytest.approx(alone, abs=1e-5)


def test_the_state_may_lie_elsewhere_as_that_of_a_live_run_does(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made / "run", run)
    newest = list_checkpoints(run / "checkpoints")[0]
    (newest / "state").rename(tmp_path / "live")
    shutil.rmtree(run / "state", ignore_errors=True)
    with pytest.raises(UsageError, match=r"belongs to prectr train.*--state-dir"):
        _ranked(made, run_dir=run)
    assert _log_odds(_ranked(made, run_dir=run, choice={"state_dirs": [tmp_path / "live"]})) == _log_odds(_ranked(made))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(StateError, match="contains no state: name the state folder of a stream worker"):
        _ranked(made, run_dir=run, choice={"state_dirs": [tmp_path / "nothing"]})


def test_partial_state_is_rejected(made: Path, tmp_path: Path) -> None:
    shutil.copytree(list_checkpoints(made / "run" / "checkpoints")[0] / "state", tmp_path / "live")
    for path in tmp_path.glob("live/**/join-*"):
        shutil.rmtree(path)
    with pytest.raises(StateError, match=r"join-\d, which user 'u1' belongs to, is not in ") as caught:
        _ranked(made, choice={"state_dirs": [tmp_path / "live"]})
    assert caught.value.remedies == (Remedy.ADDITIONAL_STATE_DIR,)
    assert "--state-dir" in with_flags(caught.value)


def _owned(state: Path, cluster: str, config: PipelineConfig, stage: str) -> None:
    """Make the stores of a stage those of a live system, which say whose they are."""
    for path in (path for path in state.glob("**/*") if re.fullmatch(rf"{stage}-\d+", path.name)):
        store = Store(path)
        owner = StoreIdentity(cluster, "topic", "id", stage, int(path.name[-1]), msgspec.to_builtins(config))
        store.write({IDENTITY_KEY: msgspec.msgpack.encode(owner)})
        store.close()


def test_stores_of_a_live_system_bring_their_own_settings_and_must_be_of_one(made: Path, tmp_path: Path) -> None:
    """The live stages keep the last two clicks of a query: what was clicked before is not known to them."""
    shutil.copytree(list_checkpoints(made / "run" / "checkpoints")[0] / "state", tmp_path / "live")
    live = replace(PIPELINE, query_clicks=2)
    for stage in ("join", "aggregate"):
        _owned(tmp_path / "live", "one", live, stage)
    ranking = _ranked(made, choice={"state_dirs": [tmp_path / "live"]})
    assert ranking.query_preference.past_clicks == 2 < _ranked(made).query_preference.past_clicks
    _owned(tmp_path / "live", "other", live, "aggregate")
    with pytest.raises(StateError, match="belong to different systems"):
        _ranked(made, choice={"state_dirs": [tmp_path / "live"]})


# --- bad input -----------------------------------------------------------------------------------------------------


def test_a_folder_without_a_checkpoint_says_so(made: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        _ranked(made, run_dir=tmp_path)


def test_a_run_without_a_model_says_so(made: Path, tmp_path: Path) -> None:
    run_replay([str(made / "log.jsonl")], tmp_path / "run", _settings(), models=[])
    with pytest.raises(CheckpointError, match="the run has no model"):
        _ranked(made, run_dir=tmp_path / "run")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"model": "dnn"}, "model 'dnn': the run in .* has trained prectr-v2, wide-deep\\+"),
        ({"without": "debias"}, "without is debias, was nothing"),
        ({"model": "wide-deep+", "without": "debias"}, "debias"),
    ],
)
def test_another_model_or_switch_set_than_the_checkpoints_is_refused(
    made: Path, choice: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        _ranked(made, choice=choice)


def test_a_setting_of_another_run_is_refused_by_name(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECTR_EMBEDDING_DIM", "16")
    with pytest.raises(UsageError, match="embedding_dim is 16, was 8"):
        _ranked(made)


def test_another_encoder_than_the_runs_is_rejected(made: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder(), encoder)
    log = write_log(tmp_path / "log.jsonl", _lines()[:9])
    run_replay([str(log)], tmp_path / "run", _settings(encoder=str(encoder)), models=["prectr-v2"])
    _ranked(made, run_dir=tmp_path / "run")
    shutil.rmtree(encoder)
    shutil.copytree(tiny_encoder(1), encoder)
    with pytest.raises(CheckpointError, match="trained with encoder"):
        _ranked(made, run_dir=tmp_path / "run")


def test_a_corrupt_checkpoint_is_reported(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    tensors = list_checkpoints(tmp_path / "run" / "checkpoints")[0] / "sinks" / "prectr-v2" / "trainer.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"trainer\.safetensors is corrupt"):
        _ranked(made, run_dir=tmp_path / "run")


def test_a_user_and_a_query_never_seen_are_ranked_as_new(made: Path) -> None:
    ranking = _ranked(made, user_id="nobody", query="never asked")
    assert ranking.user_preference.preferred is None
    assert ranking.query_preference.preferred is None
    assert not ranking.user_preference.known
    assert sum(ranking.query_preference.impressions.values()) == 0
    assert {
        "user 'nobody' is unknown: ranked as a new one",
        "query 'never asked' is unknown: ranked as a new one",
    } <= set(ranking.notes)
    assert all(0.001 < each.click_probability < 0.9 for each in ranking.ranked)


@pytest.mark.parametrize("model", MODELS)
def test_strange_titles_and_prices_have_sensible_scores(made: Path, model: str) -> None:
    strange = [
        Item("none", None, None, None, None, None, None),
        Item("empty", "", None, 5.0, None, None, None),
        Item("spaces", " \t ", None, 5.0, None, None, None),
        Item("emoji", "🎉🎉🎉", None, 5.0, None, None, None),
        Item("long", "x" * 2000, None, 5.0, None, None, None),
        Item("words", "title 1 " * 250, None, 5.0, None, None, None),
        Item("nan", "title 1", None, float("nan"), None, None, None),
        Item("free", "title 1", None, 0.0, None, None, None),
        Item("plain", "title 1", None, None, None, None, None),
    ]
    ranking = _ranked(made, items=strange, choice={"model": model})
    assert all(0.001 < each.click_probability < 0.9 for each in ranking.ranked)
    assert "2 of 9 candidates have an invalid price (not a positive number): scored as without price" in (ranking.notes)
    assert any(note.startswith("3 of 9 candidates have no title") for note in ranking.notes)
    # A price that means nothing is none, but the ids differ: all else that the model reads is the same.
    by_id = {each.item_id: each for each in ranking.ranked}
    assert by_id["nan"].level_probabilities == pytest.approx(by_id["plain"].level_probabilities)
    assert by_id["none"].level_probabilities == pytest.approx(by_id["empty"].level_probabilities, abs=1e-5)


def test_levels_in_the_file_count_for_models_with_logged_levels(made: Path) -> None:
    given = [msgspec.structs.replace(item, relevance=1 + place % 4) for place, item in enumerate(ITEMS)]
    logged = _ranked(made, items=given, choice={"model": "wide-deep+"})
    assert {each.item_id: each.relevance_level for each in logged.ranked} == {
        item.item_id: item.relevance for item in given
    }
    assert {each.relevance_source for each in logged.ranked} == {"given"}
    assert {each.relevance_source for each in _ranked(made, choice={"model": "wide-deep+"}).ranked} == {"labelled"}
    inferred = _ranked(made, items=given)
    assert _log_odds(inferred) == _log_odds(_ranked(made))
    assert "the relevance of 6 candidates is ignored: this model infers it from the text" in inferred.notes


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(candidates: Path, *more: str) -> tuple[int, str, str]:
        fixed = ["rank", "--run-dir", made / "run", "--query", "query 1", "--user", "u1", "--candidates", candidates]
        monkeypatch.setattr(sys, "argv", ["prectr", *map(str, fixed), *more])
        code: int | str | None = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        return int(code or 0), out, err

    return call


def _write(path: Path, items: list[Item]) -> Path:
    rows = [{name: value for name, value in msgspec.to_builtins(item).items() if value is not None} for item in items]
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, sorted({name for row in rows for name in row}))
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["items.jsonl", "items.csv", "items"])
def test_the_command_prints_the_ranking_and_writes_all_of_it(made: Path, tmp_path: Path, run: Run, name: str) -> None:
    code, out, err = run(_write(tmp_path / name, ITEMS), "--json", str(tmp_path / "out.json"), "--top", "4")
    assert code == 0, err
    written = msgspec.json.decode((tmp_path / "out.json").read_bytes(), type=Ranking)
    of_log = _ranked(made, as_of=None)
    assert _log_odds(written) == pytest.approx(_log_odds(of_log), abs=1e-6)
    assert (written.query, written.user_id, written.candidates, written.model) == ("query 1", "u1", 6, "prectr-v2")
    printed = [line for line in out.splitlines() if line.count("│") > 10]
    assert len(printed) == 4
    for row, best in zip(printed, written.ranked, strict=False):
        assert all(said in row for said in _numbers_of(best))
    assert "… and 2 more" in out
    assert "user 'u1' prefers level 3" in out
    assert "query 'query 1' prefers level 3" in out


def _numbers_of(of: Ranked) -> list[str]:
    assert of.incentive is not None
    return [
        of.item_id,
        f"{of.click_probability:.4f}",
        f"{of.incentive:+.3f}",
        *(f"{p:.2f}" for p in of.level_probabilities.values()),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("items.jsonl", "", "no candidates"),
        ("items.jsonl", "\n\n", "no candidates"),
        ("items.csv", "item_id,title\n", "no candidates"),
        ("items.csv", "title,price\na,1\n", "has no column item_id, but title, price"),
        ("items.csv", "item_id,price\na,cheap\n", "line 2: Expected `float"),
        ("items.csv", "item_id,title\na,b,c\n", "line 2: 3 cells for 2 columns"),
        ("items.jsonl", '{"item_id": "a"}\n{"title": "b"}\n', "line 2: Object missing required field `item_id`"),
        ("items.jsonl", '{"item_id": "a"}\n{"item_id": "a"}\n', "line 2: item 'a' is already on line 1"),
        ("items.jsonl", '{"item_id": "a", "price": NaN}\n', "line 1: .*JSON has no NaN: omit the field"),
        ("items.jsonl", '{"item_id": "a", "relevance": 9}\n', "line 1: .*relevance"),
        ("items.jsonl", '{"item_id": "' + "é" * 200 + '"}\n', "line 1: item_id has 400 bytes"),
    ],
)
def test_a_file_without_sensible_candidates_is_one_clear_line(
    tmp_path: Path, run: Run, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    code, _, err = run(tmp_path / name)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert str(tmp_path / name) in err
    assert re.search(said, err)


def test_a_missing_file_of_candidates_is_one_clear_line(tmp_path: Path, run: Run) -> None:
    code, _, err = run(tmp_path / "missing.jsonl")
    assert (code, err) == (
        1,
        f"prectr: {tmp_path / 'missing.jsonl'}: the candidates cannot be read: No such file or directory\n",
    )


def test_a_price_that_is_no_number_in_csv_is_scored_as_none(tmp_path: Path, run: Run) -> None:
    (tmp_path / "items.csv").write_text("item_id,title,price\na,title 1,nan\nb,🎉,\n")
    code, out, err = run(tmp_path / "items.csv")
    assert code == 0, err
    assert "1 of 2 candidates have an invalid price" in out


def test_a_time_that_is_none_is_wrong_use(tmp_path: Path, run: Run) -> None:
    code, _, err = run(_write(tmp_path / "items.jsonl", ITEMS), "--as-of", "soon")
    assert code == 2
    assert "'soon' is not a time" in err


def test_candidates_of_a_kind_that_was_never_shown_are_named(made: Path, run: Run, tmp_path: Path) -> None:
    """The log's items have no category; pages of three queries, of levels 1 to 4."""
    notes = _ranked(made).notes
    assert "6 of 6 candidates are of a category that was never shown: 'cables'" in notes
    bare = [msgspec.structs.replace(item, category=None) for item in ITEMS]
    assert not [note for note in _ranked(made, items=bare).notes if "never shown" in note]
    many = [msgspec.structs.replace(item, category=f"c{place}") for place, item in enumerate(ITEMS)]
    assert "6 of 6 candidates are of a category that was never shown: 'c0', 'c1', 'c2', …" in (
        _ranked(made, items=many).notes
    )


def test_levels_of_no_impressions_are_neither_preferred_nor_printed(made: Path, run: Run, tmp_path: Path) -> None:
    """Query 1 is asked on pages of every third number, of levels 1, 2, 3 and 4; a user of one page is made here."""
    log = write_log(tmp_path / "log.jsonl", [*_lines(), page("x", "single", T, query="rare", levels=[2, 2])])
    run_replay([str(log)], tmp_path / "run", _settings(), models=["wide-deep+"])
    ranking = _ranked(made, run_dir=tmp_path / "run", query="rare", user_id="single")
    assert (ranking.user_preference.preferred, ranking.query_preference.preferred) == (2, 2)
    code, out, err = run(_write(tmp_path / "items.csv", ITEMS), "--run-dir", str(tmp_path / "run"), "--query", "rare")
    assert code == 0, err
    assert "query 'rare' prefers level 2" in out
    assert "0 of 0" not in out
