"""`bench.quality`: the record of results, and the page rendered from it."""

import sys
from pathlib import Path

import msgspec
import pytest

import bench.quality.benchmark
from bench.quality.benchmark import DAYS, PAGES, RESULTS, main, paired_differences
from bench.quality.page import write_page
from bench.quality.record import QualityResults, read_results, results_path, update_results
from bench.world.learning_curve import CurvePoint
from bench.world.run_world import WorldResults
from prectr.model.text.encoder.artifact import load_encoder
from prectr.state.errors import PrectrError
from tests.bench.quality_rows import SMALL, row
from tests.kit.models.encoder import tiny_encoder


def test_remeasured_rows_replace_the_previous_ones(tmp_path: Path) -> None:
    for auc in (0.70, 0.71):
        with update_results(tmp_path, 200, 0.1) as record:
            record.add(WorldResults(rows=[row("lr", auc=auc), row("dnn")], resampled=[], levels=[]))
            record.add_curve([CurvePoint(pages=50, row=row("lr", auc=auc))])
    with update_results(tmp_path, 200, 0.1) as record:
        record.add(WorldResults(rows=[row("lr", seed=1), row("lr", track="G")], resampled=[], levels=[]))
    record = read_results(tmp_path, 200, 0.1)
    found = [(one.track, one.name, one.seed, one.auc) for one in record.rows]
    assert found == [("T", "lr", 0, 0.71), ("T", "dnn", 0, 0.7), ("T", "lr", 1, 0.7), ("G", "lr", 0, 0.7)]
    assert [point.row.auc for point in record.curve] == [0.71]
    assert read_results(tmp_path, 100, 0.1).rows == []


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"pages": 1, "days": 1, "format": 99}'])
def test_corrupt_record_is_an_error(tmp_path: Path, content: bytes) -> None:
    results_path(tmp_path, 200, 0.1).write_bytes(content)
    with pytest.raises(PrectrError, match="another --record"):
        read_results(tmp_path, 200, 0.1)


def test_published_page_has_the_figures_of_the_published_record() -> None:
    record = read_results(RESULTS.parent, PAGES, DAYS)
    text = write_page(record, paired_differences(record.rows, record.resampled), None)
    assert text == RESULTS.read_text(encoding="utf-8")


def test_page_warns_of_rows_of_different_code_or_encoders() -> None:
    rows = [row("lr", impressions_per_second=9.0), row("dnn", impressions_per_second=9.0)]
    same = [msgspec.structs.replace(one, code="aa", stage_one="bb") for one in rows]
    text = write_page(QualityResults(pages=1, days=1, rows=same), [], None)
    assert "versions of the code" not in text
    assert "stage-one encoders" not in text
    mixed = [same[0], msgspec.structs.replace(same[1], code="cc", stage_one="dd")]
    text = write_page(QualityResults(pages=1, days=1, rows=mixed), [], None)
    assert "come from 2 versions of the code** (aa, cc)" in text
    assert "used 2 stage-one encoders** (bb, dd): " in text


def test_commands_add_to_the_record_and_reuse_cached_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench.quality.benchmark, "BATCH_SETTINGS", SMALL)
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
        patched.setattr("bench.world.run_world.replay_models", again)
        assert run("--models", "prectr-v2") == [(name, "T") for name in between]
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    record = read_results(tmp_path, 200, 0.1)
    assert {(one.model, one.track) for one in record.rows} >= {("prectr-v2", "T"), ("lr", "G")}
    assert [levels.name for levels in record.levels] == ["", "prectr-v2"]
    assert {one.stage_one for one in record.rows} == {"", load_encoder(tiny_encoder()).sha256[:12]}
    assert f"| after joint training, prectr-v2 | {record.levels[1].metrics[0].accuracy:.3f} |" in page
    assert str(tmp_path) not in page
    assert capsys.readouterr().out.endswith(page + "\n")
