"""The report's P(level): what the model says of the newest pages, summed up as by hand, and shown as in the JSON."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from prectr.model.training.trainer import NEWEST_PAGES, Trainer
from prectr.ops.report.levels import level_report
from prectr.ops.settings.loader import Settings
from prectr.ops.training.replay import run_replay
from prectr.stream.config import PipelineConfig
from prectr.stream.records import decode_page
from testkit.command import write_log
from tests.kit.models.examples import random_examples, small_config
from tests.kit.stages.events import MINUTE, T, click, page


def test_it_sums_up_what_the_model_says_of_the_newest_pages() -> None:
    trainer = Trainer(small_config(model="prectr", embedding_scale=0.3))
    assert trainer.explain_newest() is None
    examples = random_examples(41, seed=5)
    trainer.consume(examples, 0)
    newest = trainer.explain_newest()
    assert newest is not None
    trained = examples[: trainer.pages_trained][-NEWEST_PAGES:]
    assert [each.request_id for each in newest[0]] == [each.request_id for each in trained]
    report = level_report(*newest)
    said = trainer.explain(trained, None)
    logged = [level for each in trained for level in each.levels]
    assert (report.pages, report.impressions) == (len(trained), len(logged))
    rows = list(zip(logged, said.levels.tolist(), strict=True))
    assert report.agreement == pytest.approx(
        np.mean([max(range(4), key=row.__getitem__) == one - 1 for one, row in rows])
    )
    assert report.log_loss == pytest.approx(np.mean([-np.log(row[one - 1]) for one, row in rows]))
    for name, of in report.by_logged.items():
        own = [row for one, row in rows if one == int(name)]
        assert of.impressions == len(own)
        assert list(of.levels.values()) == pytest.approx(np.mean(own, axis=0).tolist())
    last = report.last_pages[0]
    items = decode_page(trained[-1].page).items
    assert [item.item_id for item in last.items] == [item.item_id for item in items]
    assert [item.clicked for item in last.items] == [bool(label) for label in trained[-1].labels]
    expected = trainer.score([trained[-1]], None)
    assert [item.click_probability for item in last.items] == pytest.approx((1 / (1 + np.exp(-expected))).tolist())


def test_a_model_with_logged_levels_has_none() -> None:
    trainer = Trainer(small_config(model="wide-deep+"))
    trainer.consume(random_examples(20), 0)
    assert trainer.explain_newest() is None


def test_a_resumed_model_says_the_same(tmp_path: Path) -> None:
    config = small_config(model="prectr")
    trainer, resumed = Trainer(config), Trainer(config)
    trainer.consume(random_examples(21), 0)
    trainer.save(tmp_path)
    resumed.load(tmp_path)
    reports = []
    for each in (trainer, resumed):
        newest = each.explain_newest()
        assert newest is not None
        reports.append(level_report(*newest))
    assert reports[0] == reports[1]


def test_the_page_shows_it_as_in_the_json(tmp_path: Path) -> None:
    lines = []
    for number in range(12):
        items = [f"i{each}" for each in range(number, number + 3)]
        lines.append(page(f"r{number}", f"u{number % 3}", T + number * MINUTE, query="query <1>", items=items))
        lines.append(click(f"r{number}", f"u{number % 3}", T + number * MINUTE + 5, items[0]))
    settings = Settings(pipeline=PipelineConfig(partitions=1), trainer=small_config(model="prectr"))
    log = write_log(tmp_path / "log.jsonl", lines)
    run_replay([str(log)], tmp_path / "run", settings, models=["prectr", "lr"])
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert [model["inferred_levels"] is None for model in report["models"]] == [False, True]
    text = (tmp_path / "run" / "report.html").read_text()
    assert "Relevance as inferred from the text" in text
    assert "query &lt;1&gt;" in text
    figures = dict(re.findall(r'data-stat="(models/0/inferred_levels/[^"]*)">([^<]*)<', text))
    assert len(figures) > 40
    for path, shown in figures.items():
        value = report
        for step in path.split("/"):
            value = value[int(step)] if isinstance(value, list) else value[step]
        assert float(shown.replace(",", "")) == pytest.approx(value, abs=0.0051)
