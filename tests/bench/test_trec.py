"""On a real log the models beat the position-only baseline, by the metrics of report.json."""

from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import roc_auc_score

from bench.trec import (
    BASELINE_AUC,
    BASELINE_GAUC,
    MODEL_SETTINGS,
    log_position_features,
    position_only_baseline,
    read_pages,
)
from testkit.command import read_written_examples, run_replay_command
from testkit.trec import CLICKS, IMPRESSIONS, TREC_PAGES, trec_events, write_trec_log

pytestmark = pytest.mark.skipif(not TREC_PAGES.exists(), reason="the TREC 2013 log is missing from ../shared/data")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trec_log(tmp_path_factory.mktemp("trec") / "log.jsonl")


def test_sessions_follow_each_other_and_clicks_follow_their_pages() -> None:
    events = list(trec_events())
    times = [event["ts"] for event in events]
    assert times == sorted(times)
    pages = {event["request_id"]: event["ts"] for event in events if event["type"] == "impression"}
    clicks = [event for event in events if event["type"] == "click"]
    assert (len(pages), len(clicks)) == (399, CLICKS)
    assert all(0 < click["ts"] - pages[click["request_id"]] <= 120_000 for click in clicks)


@pytest.mark.parametrize("model", ["lr", "wide-deep"])
def test_model_beats_position_alone_by_a_hundredth(model: str, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "examples.jsonl"
    report = run_replay_command(
        log, "--model", model, "--examples", out, run_dir=tmp_path / "run", **MODEL_SETTINGS.get(model, {})
    )
    assert (report["impressions"], report["clicks"]) == (IMPRESSIONS, CLICKS)
    assert report["outcomes"]["clicks"]["joined"] == CLICKS
    assert report["auc"] >= BASELINE_AUC + 0.01
    assert report["gauc"] >= BASELINE_GAUC + 0.01


def test_history_of_a_session_is_what_was_clicked_before_the_page(log: Path, tmp_path: Path) -> None:
    """Clicks precede the next page, so a page's activity counts the clicks on earlier pages of its session."""
    out = tmp_path / "examples.jsonl.gz"
    run_replay_command(log, "--no-train", "--examples", out, run_dir=tmp_path / "run")
    earlier: dict[str, int] = {}
    examples: list[dict[str, Any]] = sorted(read_written_examples(out), key=lambda example: example["ts"])
    for example in examples:
        assert example["user_activity"] == earlier.get(example["user_id"], 0)
        clicks = sum(item["click"] for item in example["items"])
        earlier[example["user_id"]] = earlier.get(example["user_id"], 0) + clicks
    assert sum(earlier.values()) == CLICKS


def test_baseline_constants_are_reached_by_position_alone() -> None:
    """Batches of 16 pages and the default step of `lr` reproduce the constants within 0.002."""
    row = position_only_baseline(read_pages(), "baseline", log_position_features, alpha=0.1, batch_pages=16)
    assert row.auc == pytest.approx(BASELINE_AUC, abs=0.002)
    assert row.gauc == pytest.approx(BASELINE_GAUC, abs=0.002)
    pages = read_pages()
    positions = [-position for shown, _ in pages for position in shown]
    clicks = [click for _, clicked in pages for click in clicked]
    assert roc_auc_score(clicks, positions) == pytest.approx(0.6488, abs=1e-4)
