"""Promises of `import prectr`: what the commands do, as functions, wherever it is imported."""

import gzip
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

import prectr
from prectr.ops.ranking.service import RankQuery, RunRanker, RunRef
from tests.prectr.short_log import PAGES, short_log

SETTINGS = {"partitions": 1, "batch_pages": 4, "embedding_rows": 4096, "wide_rows": 4096, "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, its replay in `run` and its examples."""
    folder = tmp_path_factory.mktemp("face")
    prectr.replay(
        short_log(folder), folder / "run", model=["lr", "wide-deep+"], examples=folder / "examples.jsonl.gz", **SETTINGS
    )
    return folder


def test_the_import_is_fast_and_every_name_is_there() -> None:
    code = (
        "import sys, prectr; print([name for name in sys.modules if name.startswith(('torch', 'numpy', 'prectr.'))]);"
        "print(all(getattr(prectr, name) for name in prectr.__all__), set(prectr.__all__) <= set(dir(prectr)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split("\n") == ["[]", "True True", ""]
    with pytest.raises(AttributeError, match="has no attribute 'rerank'"):
        _ = prectr.rerank


def test_all_errors_are_of_one_tree() -> None:
    errors = [getattr(prectr, name) for name in prectr.__all__ if name.endswith("Error")]
    assert len(errors) == 8
    assert all(issubclass(error, prectr.PrectrError) for error in errors)


def test_a_replay_returns_the_report_that_it_writes(folder: Path) -> None:
    report = prectr.replay(
        str(folder / "log.jsonl"),
        folder / "run",
        model=["lr", "wide-deep+"],
        examples=folder / "examples.jsonl.gz",
        **SETTINGS,
    )
    written = json.loads((folder / "run" / "report.json").read_bytes())
    assert report.pages == PAGES
    assert [each.model for each in report.models] == ["lr", "wide-deep+"]
    returned = json.loads(msgspec.json.encode(report))
    assert returned == {**written, "seconds": returned["seconds"], "pages_per_second": returned["pages_per_second"]}


def test_a_replay_without_a_model_trains_nothing(folder: Path, tmp_path: Path) -> None:
    report = prectr.replay([folder / "log.jsonl"], tmp_path / "run", model=(), flush=False, partitions=2)
    assert report.models == []
    assert report.outcomes.pages.received == PAGES


def test_the_model_is_a_setting_too(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECTR_MODEL", "lr")
    config = tmp_path / "prectr.toml"
    config.write_text("batch_pages = 8")
    report = prectr.replay(folder / "log.jsonl", tmp_path / "run", config=config, **{**SETTINGS, "batch_pages": None})
    assert (report.models[0].model, report.config["batch_pages"]) == ("lr", 8)


def test_a_wrong_setting_is_named_as_an_argument(folder: Path, tmp_path: Path) -> None:
    for settings, message in (
        ({"smoothing": 0}, r"^smoothing: 0 \(argument smoothing\) is out of range: it must be at least 0\.001"),
        ({"batch_pagse": 1}, "^there is no setting 'batch_pagse'; the nearest is batch_pages"),
    ):
        with pytest.raises(prectr.ConfigError, match=message):
            prectr.replay(folder / "log.jsonl", tmp_path / "run", **settings)


def test_a_replay_runs_in_a_thread(folder: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        report = threads.submit(prectr.replay, folder / "log.jsonl", tmp_path / "run", model=()).result()
    assert report.pages == PAGES


def test_a_ranker_ranks_as_the_command_does_and_again(folder: Path) -> None:
    items = [prectr.Item("a", title="title of a", relevance=4), prectr.Item("b", title="title of b", relevance=1)]
    wanted = RunRanker(RunRef(run_dir=folder / "run")).rank(RankQuery(query="Query 1", user_id="u3", items=items))
    ranker = prectr.Ranker.load(folder / "run")
    assert ranker.rank(query="Query 1", user="u3", candidates=items) == wanted
    as_mappings = [msgspec.to_builtins(item) for item in items]
    assert ranker.rank(query="Query 1", user="u3", candidates=as_mappings) == wanted
    assert [each.item_id for each in wanted.ranked] == ["a", "b"]
    assert wanted.query == "query 1"


def test_a_ranker_of_a_run_with_several_models_is_of_the_named_one(folder: Path) -> None:
    asked = {"query": "new", "user": "new", "candidates": ["a", "b", "c"], "position": 3}
    assert prectr.Ranker.load(folder / "run").rank(**asked).model == "lr"
    ranking = prectr.Ranker.load(str(folder / "run"), model="wide-deep+").rank(**asked)
    assert (ranking.model, ranking.candidates, ranking.position) == ("wide-deep+", 3, 3)
    with pytest.raises(prectr.UsageError, match="prectr-v2"):
        prectr.Ranker.load(folder / "run", model="prectr-v2")


def test_the_time_of_a_query_is_a_datetime_or_milliseconds(folder: Path) -> None:
    ranker = prectr.Ranker.load(folder / "run")
    time = datetime(2023, 11, 14, 22, 20, tzinfo=UTC)
    rankings = [
        ranker.rank(query="query 1", user="u1", candidates=["a"], as_of=as_of)
        for as_of in (time, time.replace(tzinfo=None), round(time.timestamp() * 1000))
    ]
    assert rankings[0] == rankings[1] == rankings[2]
    assert rankings[0].as_of == 1_700_000_400_000


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "there are none"),
        (["a", {"item_id": "a"}], "number 2: item 'a' is already on number 1"),
        ([{"item_id": "a", "price": "10 $"}], r"number 1: Expected `float \| null`, got `str` - at `\$\.price`"),
        ([{"title": "a"}], "number 1: Object missing required field `item_id`"),
        (["é" * 129], "number 1: "),
    ],
)
def test_what_is_no_candidate_is_refused_by_its_number(folder: Path, candidates: list[object], message: str) -> None:
    with pytest.raises(prectr.InputError, match=f"^candidates: {message}"):
        prectr.Ranker.load(folder / "run").rank(query="q", user="u", candidates=candidates)


@pytest.mark.parametrize("position", [0, 201])
def test_a_position_that_no_page_has_is_refused(folder: Path, position: int) -> None:
    with pytest.raises(prectr.UsageError, match=f"position {position}: a page has the positions 1 to 200"):
        prectr.Ranker.load(folder / "run").rank(query="q", user="u", candidates=["a"], position=position)


def test_examples_are_read_as_written(folder: Path, tmp_path: Path) -> None:
    text = gzip.decompress((folder / "examples.jsonl.gz").read_bytes())
    examples = list(prectr.read_examples(folder / "examples.jsonl.gz"))
    assert json.loads(msgspec.json.encode(examples)) == [json.loads(line) for line in text.splitlines()]
    assert len(examples) == PAGES
    (tmp_path / "plain.jsonl").write_bytes(text)
    assert list(prectr.read_examples(str(tmp_path / "plain.jsonl"))) == examples


def test_examples_that_cannot_be_read_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "examples.jsonl.gz").read_bytes()
    for name, content, message in (
        ("wrong.jsonl", b'{"request_id": "r1"}\n', r"wrong\.jsonl: line 1 is not an example: Object missing"),
        ("cut.jsonl.gz", whole[: len(whole) // 2], r"cut\.jsonl\.gz: corrupt after line \d+: "),
        ("plain.jsonl.gz", b"{}", r"plain\.jsonl\.gz: corrupt after line 0: it is not gzip data"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(prectr.InputError, match=message):
            list(prectr.read_examples(tmp_path / name))
    with pytest.raises(prectr.InputError, match="No such file"):
        list(prectr.read_examples(tmp_path / "missing.jsonl"))


USE = """
import prectr
report = prectr.replay("log.jsonl", "run", model="lr", partitions=1, embedding_rows=4096, wide_rows=4096)
ranking = prectr.Ranker.load("run").rank(query="query 1", user="u1", candidates=["a", "b"])
print(report.pages, len(ranking.ranked))
"""


def test_a_folder_may_have_modules_of_the_same_names_as_our_folders(tmp_path: Path) -> None:
    for name in ("model", "stream", "state", "ops"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise AssertionError('another module was imported')")
    (tmp_path / "model").rename(tmp_path / "a_model")
    (tmp_path / "model.py").write_text("raise AssertionError('another module was imported')")
    (tmp_path / "use.py").write_text(USE)
    short_log(tmp_path)
    done = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{PAGES} 2\n"), done.stderr
