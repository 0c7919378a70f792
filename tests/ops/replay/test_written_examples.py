"""The examples that a replay with models writes: every field, each model's scores, and after a stop the same."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

import prectr
from prectr.ops.settings.loader import load_settings
from prectr.ops.training.evaluated_sinks import make_sinks
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.replay.runner import Replay, RunnerOptions
from prectr.stream.sinks.pending_scores import PendingScores
from testkit.command import prectr as prectr_command
from testkit.command import write_log
from tests.kit.stages.disordered import StopReplay, stop_at_step
from tests.kit.stages.events import SECOND, T

MODELS = ["lr", "wide-deep+"]
SETTINGS = {
    "partitions": 2,
    "batch_pages": 17,
    "batch_span": "1d",
    "embedding_rows": 4096,
    "wide_rows": 4096,
    "device": "cpu",
}
PAGES = 150


def events() -> Iterator[dict[str, Any]]:
    """Pages of which some have each field of the contract, and clicks on half of them."""
    rng = Random(5)
    for number in range(PAGES):
        user, ts = f"u{rng.randrange(9)}", T + 20 * SECOND * number
        items: list[dict[str, Any]] = [{"item_id": f"i{each}"} for each in rng.sample(range(40), rng.randint(1, 5))]
        for position, item in enumerate(items, 1):
            fields = {
                "title": f"Title {item['item_id']}",
                "relevance": rng.randint(1, 4),
                "price": rng.randint(1, 99) / 4,
                "category": "cables",
                "brand": "bränd",
                "position": len(items) + 1 - position,
                "features": {"margin": rng.random(), "colour": "red"},
            }
            item |= {name: value for name, value in fields.items() if name == "position" or rng.random() < 0.5}
        page = {"type": "impression", "request_id": f"r{number:03}", "user_id": user, "ts": ts, "items": items}
        page["query"] = f" Query  {number % 6}"
        if number % 3 == 0:
            page |= {"context": {"device": "phone"}, "features": {"hits": float(number)}}
        yield page
        if rng.random() < 0.5:
            item_id = rng.choice(items)["item_id"]
            yield page | {"type": "click", "item_id": item_id, "ts": ts + 3 * SECOND}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = []
    for event in events():
        names = ("type", "request_id", "user_id", "item_id", "ts") if event["type"] == "click" else tuple(event)
        lines.append(json.dumps({name: event[name] for name in names}).encode())
    return write_log(tmp_path_factory.mktemp("log") / "log.jsonl", lines)


@pytest.fixture(scope="module")
def whole(log: Path) -> prectr.Report:
    """The report of one run, whose examples are `examples.jsonl` beside the log."""
    return prectr.replay(log, log.with_name("run"), model=MODELS, examples=log.with_name("examples.jsonl"), **SETTINGS)


@pytest.mark.usefixtures("whole")
def test_every_field_is_as_in_the_log(log: Path) -> None:
    logged = [json.loads(line) for line in log.read_bytes().splitlines()]
    clicks = {(event["request_id"], event["item_id"]) for event in logged if event["type"] == "click"}
    pages = [event for event in logged if event["type"] == "impression"]
    lines = [json.loads(line) for line in log.with_name("examples.jsonl").read_bytes().splitlines()]
    assert [line["request_id"] for line in lines] == [page["request_id"] for page in pages]
    for line, page in zip(lines, pages, strict=True):
        assert line["query_as_typed"] == page["query"]
        assert line["query"] == page["query"].strip().lower().replace("  ", " ")
        assert [line[name] for name in ("user_id", "ts")] == [page[name] for name in ("user_id", "ts")]
        assert [line.get(name) for name in ("context", "features")] == [page.get(n) for n in ("context", "features")]
        assert line["closes_at"] > line["ts"]
        assert len(line["query_decayed"]) == 3
        for item, shown in zip(line["items"], page["items"], strict=True):
            assert item["click"] == ((page["request_id"], item["item_id"]) in clicks)
            for name in ("item_id", "title", "price", "category", "brand", "position", "features"):
                assert item.get(name) == shown.get(name), name
            assert item["relevance"] == shown.get("relevance", item["relevance"])
            assert list(item["scores"]) == MODELS


def test_the_scores_are_those_that_the_report_measured(log: Path, whole: prectr.Report) -> None:
    """From the file alone: the same loss and the same AUC, so every score is in its place."""
    table = prectr.read_examples(log.with_name("examples.jsonl")).to_arrow(by="impression")
    clicks = table["click"].to_numpy()
    assert whole.impressions == len(clicks)
    for model in whole.models:
        scores = table[f"score_{model.model}"].to_numpy()
        assert log_loss(clicks, scores) == pytest.approx(model.log_loss, rel=1e-6)
        assert roc_auc_score(clicks, scores) == pytest.approx(model.auc, abs=1e-3)
        assert len(np.unique(scores)) > 50


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(("name", "seed", "interval"), [("out.jsonl", 0, 0.0), ("out.parquet", 1, 0.0)])
def test_a_run_that_was_stopped_writes_the_same(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, seed: int, interval: float
) -> None:
    monkeypatch.setattr("prectr.stream.replay.runner.STEP_LINES", 13)
    rng, stops = Random(seed), 0
    while True:
        replay = opened(log, tmp_path, name, interval)
        try:
            replay.run(flush=True, progress=stop_at_step(rng.randint(2, 5) if stops < 4 else 1 << 30))
        except StopReplay:
            stops += 1
        else:
            break
        finally:
            replay.close()
    assert stops == 4
    expected = log.with_name("examples.jsonl")
    assert list(prectr.read_examples(tmp_path / name)) == list(prectr.read_examples(expected))
    if name.endswith(".jsonl"):
        assert (tmp_path / name).read_bytes() == expected.read_bytes()


def opened(log: Path, folder: Path, name: str, interval: float) -> Replay:
    settings = load_settings(None, SETTINGS, overrides_are_flags=False)
    scores = PendingScores(MODELS)
    return Replay(
        [str(log)],
        folder / "run",
        settings.pipeline,
        config={"any": "one"},
        sinks=make_sinks(settings, MODELS, scores=scores),
        label=LexicalLabeller(),
        options=RunnerOptions(examples=folder / name, scores=scores, checkpoint_interval=interval),
    )


@pytest.mark.usefixtures("whole")
def test_without_flush_pages_of_the_open_batch_have_no_scores_until_the_run_goes_on(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    for flush in (False, True):
        prectr.replay(log, tmp_path / "run", model=MODELS, examples=out, flush=flush, **SETTINGS)
        found = list(prectr.read_examples(out))
        scored = [all(set(item.scores) == set(MODELS) for item in page.items) for page in found]
        if not flush:
            assert scored == sorted(scored, reverse=True)
            assert sum(scored) == len(found) // 17 * 17 < len(found)
    assert found == list(prectr.read_examples(log.with_name("examples.jsonl")))


def test_another_suffix_is_refused_before_any_work(log: Path, tmp_path: Path) -> None:
    for command in (
        ["replay", log, "--run-dir", tmp_path / "run", "--examples", tmp_path / "out.csv"],
        ["examples", "--bootstrap", "localhost:1", "--out", tmp_path / "out.csv"],
    ):
        done = prectr_command(*command)
        assert done.returncode == 2
        assert "out.csv: its name must end in one of .jsonl, .jsonl.gz, .jsonl.zst, .parquet" in " ".join(
            done.stderr.split()
        )
    with pytest.raises(prectr.UsageError, match=r"out\.csv: its name must end in"):
        prectr.replay(log, tmp_path / "run", examples=tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []
