"""Custom features from the log to the report and to `prectr rank`."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prectr
from prectr.model.training.trainer import Trainer
from prectr.ops.cli.main import main
from prectr.ops.ranking.features import feature_value
from prectr.ops.settings.loader import Settings
from prectr.ops.training.replay import run_replay
from prectr.state.errors import InputError
from prectr.stream.config import PipelineConfig
from prectr.stream.records import decode_example
from prectr.stream.replay.run_checkpoint import list_checkpoints
from testkit.command import write_log
from tests.kit.models.examples import small_config
from tests.kit.stages.events import MINUTE, T, click
from tests.kit.stages.replays import replay_to_end

PIPELINE = PipelineConfig(partitions=2)
MODELS = ("lr", "wide-deep+")
ASKED = T + 30 * 24 * 60 * MINUTE
Run = Callable[..., tuple[int, str, str]]


def _page(request_id: str, user: str, ts: int, items: list[dict[str, Any]], **extra: object) -> bytes:
    event = {"type": "impression", "request_id": request_id, "user_id": user, "query": "cable", "ts": ts}
    return json.dumps(event | {"items": items} | extra).encode()


def _lines(pages: int = 200) -> list[bytes]:
    """Items with a high `rating` are clicked; a name that needs escaping, a device, and an hour say nothing."""
    lines = []
    random = np.random.default_rng(5)
    for number in range(pages):
        user, ts = f"u{number % 4}", T + number * 10 * MINUTE
        items: list[dict[str, Any]] = []
        for name in random.choice(30, 4, replace=False).tolist():
            features: dict[str, Any] = {"<b>": f"s{random.integers(3)}"}
            if random.random() < 0.8:
                features["rating"] = int(random.integers(1, 6))
            items.append({"item_id": f"i{name}", "title": f"title {name}", "relevance": 3, "features": features})
        lines.append(
            _page(f"r{number}", user, ts, items, features={"hour": number % 24}, context={"device": f"d{number % 2}"})
        )
        lines += [
            click(f"r{number}", user, ts + 1000 * place, item["item_id"])
            for place, item in enumerate(items, 1)
            if random.random() < (0.8 if item["features"].get("rating", 0) >= 4 else 0.05)
        ]
    return lines


def _settings(**more: object) -> Settings:
    return Settings(pipeline=PIPELINE, trainer=small_config(batch_pages=5, embedding_lr=0.3, **more))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, and a replay of it with two models."""
    folder = tmp_path_factory.mktemp("made")
    log = write_log(folder / "log.jsonl", _lines())
    run_replay([str(log)], folder / "run", _settings(), models=MODELS)
    return folder


@pytest.fixture
def run(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`prectr rank` on the run; returns exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        named = ["--run-dir", made / "run", "--query", "cable", "--user", "u1"]
        monkeypatch.setattr(sys, "argv", ["prectr", "rank", *map(str, [*named, *arguments])])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capsys.readouterr()
        return code, out, err

    return call


def _candidate(item_id: str, **features: float | str) -> dict[str, object]:
    return {"item_id": item_id, "title": "title 3", "relevance": 3, "features": features}


def test_the_report_counts_each_feature_and_says_what_it_is_worth(made: Path) -> None:
    report = json.loads((made / "run" / "report.json").read_bytes())
    pages = [json.loads(line) for line in _lines() if b"impression" in line]
    items = [item for each in pages for item in each["items"]]
    rated = sum("rating" in item["features"] for item in items)
    for model in report["models"]:
        read = {each["name"]: each for each in model["features"]["read"]}
        assert read.keys() == {"rating", "<b>", "hour", "device"}
        assert (read["rating"]["values"], read["rating"]["missing"]) == (rated, len(items) - rated)
        assert (read["rating"]["least"], read["rating"]["greatest"], read["rating"]["kind"]) == (1, 5, "number")
        assert (read["device"]["source"], read["device"]["values"], read["device"]["least"]) == ("context", 200, None)
        worth = {name: each["importance"] for name, each in read.items()}
        assert max(worth, key=worth.__getitem__) == "rating"
        assert worth["rating"] > 0.02
        assert read["rating"]["importance_error"] < worth["rating"]


def test_the_page_shows_the_figures_of_the_json(made: Path) -> None:
    report = json.loads((made / "run" / "report.json").read_bytes())
    text = (made / "run" / "report.html").read_text()
    assert "<h2>Custom features</h2>" in text
    assert "&lt;b&gt;" in text
    assert "importance to wide-deep+" in text
    figures = re.findall(r'data-stat="(models/\d/features/[^"]*)">([^<]*)<', text)
    assert len(figures) == 4 + 2 * 4 * 2
    for path, shown in figures:
        value = report
        for step in path.split("/"):
            value = value[int(step)] if isinstance(value, list) else value[step]
        assert float(shown.replace(",", "")) == pytest.approx(value, abs=5.1e-5)


def test_a_log_without_features_has_no_section_and_says_what_the_settings_leave_out(made: Path, tmp_path: Path) -> None:
    bare = []
    for line in _lines(20):
        event = json.loads(line)
        for each in [event, *event.get("items", [])]:
            each.pop("features", None)
        event.pop("context", None)
        bare.append(json.dumps(event).encode())
    run_replay([str(write_log(tmp_path / "bare.jsonl", bare))], tmp_path / "bare", _settings(), models=["lr"])
    assert "Custom features" not in (tmp_path / "bare" / "report.html").read_text()
    settings = _settings(item_features=("rating",), page_features=("none",), context_features=())
    run_replay([str(made / "log.jsonl")], tmp_path / "named", settings, models=["lr"])
    features = json.loads((tmp_path / "named" / "report.json").read_bytes())["models"][0]["features"]
    assert [each["name"] for each in features["read"]] == ["rating"]
    assert features["ignored"] == {"page": {"hour": 200}, "item": {"<b>": 800}, "context": {"device": 200}}
    assert "Not read, by the settings" in (tmp_path / "named" / "report.html").read_text()


def test_a_log_in_two_parts_equals_one_replay_bit_for_bit(made: Path, tmp_path: Path) -> None:
    first = write_log(tmp_path / "1.jsonl", _lines()[:151])
    second = write_log(tmp_path / "2.jsonl", _lines()[151:])
    run_replay([str(first)], tmp_path / "run", _settings(), models=MODELS, flush=False)
    run_replay([str(first), str(second)], tmp_path / "run", _settings(), models=MODELS)
    parts, whole = (json.loads((folder / "run" / "report.json").read_bytes())["models"] for folder in (tmp_path, made))
    assert [model["weights_sha256"] for model in parts] == [model["weights_sha256"] for model in whole]
    assert [model["features"] for model in parts] == [model["features"] for model in whole]


@pytest.mark.parametrize("model", MODELS)
def test_scores_are_the_trainers_on_the_page_that_the_stages_make(made: Path, tmp_path: Path, model: str) -> None:
    """The oracle: the same page at the end of the log, through both stages, scored by the run's trainer."""
    items = [_candidate(f"i{rating}", rating=float(rating)) for rating in range(1, 6)] + [
        _candidate("i9", rating="five")
    ]
    extra = {"features": {"hour": 3}, "context": {"device": "d1"}}
    last = _page("x", "u1", ASKED, items, **extra)
    collected = replay_to_end(
        [write_log(tmp_path / "longer.jsonl", [*_lines(), last])], tmp_path / "run", config=PIPELINE
    )
    trainer = Trainer(small_config(batch_pages=5, embedding_lr=0.3, model=model))
    trainer.load(list_checkpoints(made / "run" / "checkpoints")[0] / "sinks" / model)
    expected = trainer.score([decode_example(collected.emitted[-1])])
    ranker = prectr.Ranker.load(made / "run", model=model)
    ranking = ranker.rank(query="cable", user="u1", candidates=items, as_of=ASKED, **extra)  # type: ignore[arg-type]
    found = {each.item_id: each.log_odds for each in ranking.ranked}
    assert [found[str(item["item_id"])] for item in items] == pytest.approx(expected.tolist(), abs=1e-6)
    assert {ranking.ranked[0].item_id, ranking.ranked[1].item_id} == {"i4", "i5"}


def test_a_ranking_says_which_features_are_not_those_of_the_log(made: Path) -> None:
    ranker = prectr.Ranker.load(made / "run")
    candidates = [_candidate("a", rating="five", novel=1.0), _candidate("b", rating="four")]
    notes = ranker.rank(query="cable", user="u1", candidates=candidates, context={"device": "never seen"}).notes
    assert "candidate feature 'novel' is ignored: the model has never read it" in notes
    wrong = (
        "candidate feature 'rating' is ignored: it is a string here and a number in the log, so it counts as missing"
    )
    assert wrong in notes
    assert "scored as missing, since nothing has them: candidate feature <b>" in notes
    assert "scored as missing, since nothing has them: page feature hour" in notes
    assert not [note for note in notes if "context" in note]


def test_csv_and_json_lines_rank_alike_with_features_of_the_page(made: Path, tmp_path: Path, run: Run) -> None:
    lines = tmp_path / "items.jsonl"
    lines.write_text("\n".join(json.dumps(_candidate(f"i{n}", rating=n, **{"<b>": "s1"})) for n in (1, 3, 5)))
    table = tmp_path / "items.csv"
    rows = "".join(f"i{n},title 3,3,{n},s1,\n" for n in (1, 3, 5))
    table.write_text(f"item_id,title,relevance,features.rating,features.<b>,features.none\n{rows}")
    results = []
    for path in (lines, table):
        page = ["--feature", "hour=7", "--context", "device=d1"]
        code, out, err = run("--candidates", path, *page, "--json", tmp_path / "out.json")
        assert (code, err) == (0, "")
        assert "missing" not in out
        results.append(json.loads((tmp_path / "out.json").read_bytes()))
    assert results[0]["ranked"] == results[1]["ranked"]
    assert results[0]["ranked"][0]["item_id"] == "i5"
    for wrong, said in (("hour", "--feature hour: give a name and a value"), ("=1", "give a name and a value")):
        code, _, err = run("--candidates", lines, "--feature", wrong)
        assert code != 0
        assert said in err


def test_a_feature_that_is_not_valid_is_one_clear_line(made: Path, tmp_path: Path, run: Run) -> None:
    lines = tmp_path / "items.jsonl"
    lines.write_text('{"item_id": "a", "features": {"x": [1]}}')
    code, _, err = run("--candidates", lines)
    assert code == 1
    assert "line 1: Expected `float | str`, got `array`" in err
    ranker = prectr.Ranker.load(made / "run")
    with pytest.raises(InputError, match="context: Expected `str`"):
        ranker.rank(query="cable", user="u1", candidates=["a"], context={"device": 1})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4.5", 4.5),
        ("-1e3", -1000.0),
        ("phone", "phone"),
        ('"42"', "42"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("1_000", "1_000"),
        ("", ""),
        ("12 GB", "12 GB"),
    ],
)
def test_text_that_is_a_finite_number_is_one(text: str, value: float | str) -> None:
    assert feature_value(text) == value
    assert type(feature_value(text)) is type(value)
