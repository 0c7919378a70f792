"""`prectr compare`: what is compared, with which intervals, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from prectr.model.features.hashing import hash_text
from prectr.model.quality.paired import sample_of
from prectr.model.quality.quality import Quality
from prectr.model.quality.resamples import Resamples
from prectr.model.quality.scored_pages import ScoredPages
from prectr.ops.commands.pipeline.compare import compare
from prectr.ops.report.comparison.runs import compare_runs
from prectr.ops.report.comparison.samples import RunSamples, write_samples
from prectr.state.errors import InputError, PrectrError, UsageError

PAGES = 400


def scored(noise: float) -> ScoredPages:
    """The same pages, scored by their truth with so much noise."""
    world = np.random.default_rng(0)
    truth = world.normal(-1.0, 1.0, PAGES * 5)
    labels = (world.random(len(truth)) < 1 / (1 + np.exp(-truth))).astype(np.uint8)
    return ScoredPages(
        logits=truth + noise * np.random.default_rng(1).normal(size=len(truth)),
        labels=labels,
        levels=np.ones(len(truth), np.uint8),
        positions=np.tile(np.arange(1, 6), PAGES),
        category=np.zeros(len(truth), np.uint64),
        page_sizes=np.full(PAGES, 5),
        user_activity=np.zeros(PAGES, np.int64),
        closes_at=np.arange(PAGES) * 60_000,
        page_keys=np.array([hash_text(f"r{page}") for page in range(PAGES)], np.uint64),
        user_keys=np.array([hash_text(f"u{page % 70}") for page in range(PAGES)], np.uint64),
        query_keys=np.zeros(PAGES, np.uint64),
    )


def run(folder: Path, models: dict[str, float], *, sha: str = "aa", **config: object) -> Path:
    """The folder of a run with these models, each with its noise, and the baseline that every run has."""
    folder.mkdir()
    samples = []
    for name, noise in {**models, "popularity": 3.0}.items():
        pages, quality, resamples = scored(noise), Quality(), Resamples()
        resamples.add(pages, quality.add_pages(pages))
        samples.append(sample_of(name, quality, resamples))
    write_samples(folder, RunSamples(examples_sha256=sha, config=dict(config), models=samples))
    return folder


def test_models_are_compared_by_name_with_paired_intervals_and_the_settings_that_differ(tmp_path: Path) -> None:
    first = run(tmp_path / "a", {"lr": 1.0, "dnn": 0.5}, seed=0, model="lr,dnn")
    second = run(tmp_path / "b", {"lr": 0.2}, seed=1, model="lr,dnn")
    found = compare_runs(first, second)
    assert found.same_examples
    assert found.settings == {"seed": (0, 1)}
    assert [(each.first_model, each.second_model, each.metric) for each in found.differences] == [
        ("lr", "lr", "auc"),
        ("lr", "lr", "gauc"),
        ("lr", "lr", "log_loss"),
    ]
    for each in found.differences:
        assert each.difference == pytest.approx((each.second.value or 0) - (each.first.value or 0))
        for paired in (each.by_page, each.by_user):
            assert paired is not None
            assert (paired.low > 0) if each.metric != "log_loss" else (paired.high < 0)
        own = each.first.by_user
        assert own is not None
        assert each.by_user is not None
        # Paired: the pages' own difficulty cancels.
        assert each.by_user.high - each.by_user.low < 1.2 * (own.high - own.low)


def test_runs_without_a_common_model_are_compared_each_with_each(tmp_path: Path) -> None:
    found = compare_runs(run(tmp_path / "a", {"lr": 1.0, "dnn": 0.5}), run(tmp_path / "b", {"prectr": 0.2}))
    assert {(each.first_model, each.second_model) for each in found.differences} == {
        ("lr", "prectr"),
        ("dnn", "prectr"),
    }


def test_without_replicates_figures_of_the_reports_are_compared_without_intervals(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, auc in zip(folders, (0.70, 0.75), strict=True):
        folder.mkdir()
        model = {"model": "lr", "pages": 9, "auc": auc, "gauc": None, "log_loss": 0.3, "levels": {}}
        (folder / "report.json").write_text(json.dumps({"examples_sha256": "aa", "config": {}, "models": [model]}))
    auc, gauc, _ = compare_runs(*folders).differences
    assert auc.difference == pytest.approx(0.05)
    assert (auc.by_page, auc.by_user, gauc.difference) == (None, None, None)


def test_other_examples_have_no_differences_and_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(tmp_path / "a", {"lr": 1.0}, attribution_window=120)
    second = run(tmp_path / "b", {"lr": 0.2}, sha="bb", attribution_window=60)
    with pytest.raises(PrectrError, match="different examples"):
        compare(first, second, json=tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["same_examples"] is False
    assert written["settings"] == {"attribution_window": [120, 60]}
    assert all(each["difference"] is None and each["first"]["value"] for each in written["differences"])
    assert "attribution_window" in capsys.readouterr().out


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    first = run(tmp_path / "a", {"lr": 1.0})
    with pytest.raises(UsageError, match="has no model dnn: it has lr"):
        compare_runs(first, first, ["dnn"])
    with pytest.raises(InputError, match=r"has no report.json"):
        compare_runs(first, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "resamples.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        compare_runs(first, tmp_path / "empty")


def test_the_verdict_is_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = run(tmp_path / "a", {"lr": 1.0}), run(tmp_path / "b", {"lr": 0.2})
    compare(first, second)
    lines = [line for line in capsys.readouterr().out.splitlines() if "│ lr" in line]
    assert [line.split("│")[-2].strip() for line in lines] == ["second"] * 3
    compare(second, first)
    lines = [line for line in capsys.readouterr().out.splitlines() if "│ lr" in line]
    assert [line.split("│")[-2].strip() for line in lines] == ["first"] * 3
    compare(first, first)
    assert capsys.readouterr().out.count("cannot be told") == 3
