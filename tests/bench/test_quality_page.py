"""`bench.quality`: the record of what was found, and the page that is written from it."""

import sys
from pathlib import Path

import msgspec
import pytest

import bench.quality.benchmark
from bench.quality.benchmark import main, paired_differences
from bench.quality.benchmark.page import COMMANDS, write_page
from bench.quality.benchmark.record import Record, changing, read_record, record_path
from bench.quality.benchmark.targets import NO_DEBIAS
from bench.world.drift import BINS_AFTER, BINS_BEFORE, MODES, DriftBins, DriftRun
from bench.world.learning_curve import CurvePoint
from bench.world.run_world import LevelAccuracy, WorldResults
from bench.world.stage_one import SLICES, LevelMetrics
from prectr.model.text.encoder.artifact import load_encoder
from prectr.state.errors import PrectrError
from tests.bench.quality_rows import SMALL, row
from tests.kit.models.encoder import tiny_encoder


def test_remeasured_rows_replace_the_previous_ones(tmp_path: Path) -> None:
    for auc in (0.70, 0.71):
        with changing(tmp_path, 200, 0.1) as record:
            record.add(WorldResults(rows=[row("lr", auc=auc), row("dnn")], resampled=[], levels=[]))
            record.add_curve([CurvePoint(pages=50, row=row("lr", auc=auc))])
    with changing(tmp_path, 200, 0.1) as record:
        record.add(WorldResults(rows=[row("lr", seed=1), row("lr", track="G")], resampled=[], levels=[]))
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
            impressions=[10] * (BINS_BEFORE + BINS_AFTER),
            entropy=[1.0] * (BINS_BEFORE + BINS_AFTER),
            loss={way: [1.1] * BINS_BEFORE + [loss] * BINS_AFTER for way, loss in zip(MODES, after, strict=True)},
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
            figures = [LevelMetrics(slice=name, accuracy=0.7, log_loss=0.8, showings=9) for name in SLICES]
            levels = [LevelAccuracy(name="", track=track, seed=seed, figures=figures, known_queries=0.02)]
            record.add(WorldResults(rows=rows, resampled=[], levels=levels if track == "T" else []))
    record.add_curve([CurvePoint(pages=pages, row=row("prectr-v2")) for pages in (10, 20)])
    record.add_drift([drifted("prectr-v2")])
    record.add_part("python -m bench.quality --seeds 0,1", 12.0)
    out = tmp_path / "results" / "page.md"
    text = write_page(record, paired_differences(record.rows), out)
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
    write_page(record, paired_differences(record.rows), out)
    assert {path.name: path.read_bytes() for path in out.parent.glob("*.svg")} == plots


def test_page_warns_of_rows_of_different_code_or_encoders() -> None:
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
    monkeypatch.setattr(bench.quality, "BATCH_SETTINGS", SMALL)
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
    record = read_record(tmp_path, 200, 0.1)
    assert {(one.model, one.track) for one in record.rows} >= {("prectr-v2", "T"), ("lr", "G")}
    assert [levels.name for levels in record.levels] == ["", "prectr-v2"]
    assert {one.stage_one for one in record.rows} == {"", load_encoder(tiny_encoder()).sha256[:12]}
    assert f"| after joint training, prectr-v2 | {record.levels[1].figures[0].accuracy:.3f} |" in page
    assert str(tmp_path) not in page
    assert capsys.readouterr().out.endswith(page + "\n")
