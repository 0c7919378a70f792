"""The report: what programs read from report.json, and what a person sees on report.html."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from prectr.model.quality.quality import Quality
from prectr.ops.report import ModelReport, QueryPreference, Report, RunSummary, build_report, model_report, write_report
from prectr.ops.report.html import render
from prectr.state.errors import PrectrError
from prectr.stream.join.outcomes import ClickOutcomes, Outcomes, PageOutcomes

START = 1_767_225_600_000
HOUR = 3_600_000
FIGURES = ("pages", "impressions", "clicks", "auc", "gauc", "log_loss", "normalized_entropy", "calibration")
NASTY = "<script>alert('x')</script> & \"q\" \x00\x1b"


def quality_of(seed: int, pages: int = 600) -> Quality:
    rng = np.random.default_rng(seed)
    out = Quality()
    for i in range(0, pages, 20):
        logits = rng.normal(-1.2, 1, 200)
        out.add_batch(
            logits,
            (rng.random(200) < 1 / (1 + np.exp(-logits))).astype(np.uint8),
            np.arange(0, 201, 10),
            user_activity=rng.integers(0, 15, 20),
            levels=rng.integers(1, 5, 200).astype(np.uint8),
            positions=np.tile(np.arange(1, 11), 20),
            closes_at=np.full(20, START + i * HOUR // 10),
        )
    return out


def model_of(name: str, seed: int, pages: int = 600) -> ModelReport:
    return model_report(name, quality_of(seed, pages).summary(), f"{seed:02x}" * 32)


BALANCED = Outcomes(PageOutcomes(620, 598, 4, 2, 9, 7), ClickOutcomes(1530, 1497, 8, 9, 6, 4, 2, 3, 1), 3)


def facts(**changes: object) -> RunSummary:
    plain = RunSummary(
        pages=600,
        impressions=6000,
        outcomes=BALANCED,
        dead_letters={"json": 3, "wrong_type": 8},
        late_records=0,
        top_queries=[
            QueryPreference(query="hdmi cable", impressions=(40, 80, 160, 320), clicks=(1, 8, 40, 160)),
            QueryPreference(query="mouse", impressions=(0, 5, 100, 200), clicks=(0, 2, 20, 40)),
        ],
        examples_sha256="e1" * 32,
        aggregates_sha256="a2" * 32,
        seconds=12.0,
        config={"model": "lr", "partitions": 4, "attribution_window": 120.0, "without": []},
    )
    return msgspec.structs.replace(plain, **changes)


class Page(HTMLParser):
    """Tags, attributes and the visible text of a page; fails where tags do not match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.parts: list[str] = []
        self.feed(source)
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.parts))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.parts.append(data)


def page_of(report: Report) -> Page:
    return Page(render(report))


def read_json(report: Report, folder: Path) -> dict[str, object]:
    write_report(folder, report)
    return json.loads((folder / "report.json").read_text())


def test_report_json_has_what_the_design_promises_to_programs(tmp_path: Path) -> None:
    quality = quality_of(1)
    report = build_report(facts(), [model_report("lr", quality.summary(), "0f" * 32)])
    got = read_json(report, tmp_path)
    segments = quality.segments()
    for name in FIGURES:
        assert got[name] == getattr(segments["all"], name)
        for segment in ("new", "low", "active"):
            assert got["segments"][segment][name] == getattr(segments[segment], name)
        assert got["second_half"][name] == getattr(quality.second_half().sketch, name)
    assert got["model"] == "lr"
    assert got["outcomes"] == {
        "pages": {"in": 620, "emitted": 598, "open": 4, "empty": 2, "duplicate": 9, "dead_letter": 7},
        "clicks": {
            "in": 1530,
            "joined": 1497,
            "duplicate": 8,
            "late": 9,
            "orphan": 6,
            "foreign": 4,
            "waiting": 2,
            "other_action": 3,
            "dead_letter": 1,
        },
        "unreadable": 3,
    }
    assert (got["examples_sha256"], got["aggregates_sha256"]) == ("e1" * 32, "a2" * 32)
    assert got["weights_sha256"] == "0f" * 32
    assert (got["seconds"], got["pages_per_second"]) == (12.0, 50.0)
    assert got["config"] == {"model": "lr", "partitions": 4, "attribution_window": 120.0, "without": []}
    assert got["top_queries"][0] == {
        "query": "hdmi cable",
        "impressions": [40, 80, 160, 320],
        "clicks": [1, 8, 40, 160],
    }
    assert got["dead_letters"] == {"json": 3, "wrong_type": 8}
    assert sum(point["all"]["pages"] for point in got["timeline"]) == 600
    assert set(got["levels"]) == {"1", "2", "3", "4"}


def test_the_first_model_is_the_one_at_the_top_and_all_are_listed(tmp_path: Path) -> None:
    models = [model_of("wide-deep", 1), model_of("lr", 2)]
    got = read_json(build_report(facts(), models), tmp_path)
    assert [model["model"] for model in got["models"]] == ["wide-deep", "lr"]
    assert (got["model"], got["auc"], got["weights_sha256"]) == ("wide-deep", models[0].auc, "01" * 32)
    assert got["models"][1]["auc"] == models[1].auc
    assert got["models"][1]["segments"]["new"]["auc"] == models[1].segments.new.auc


def test_undefined_metrics_are_null_and_dashes(tmp_path: Path) -> None:
    report = build_report(facts(seconds=0.0), [model_report("lr", Quality().summary(), "00" * 32)])
    got = read_json(report, tmp_path)
    assert (got["pages"], got["impressions"]) == (0, 0)
    for name in ("auc", "gauc", "log_loss", "normalized_entropy", "calibration", "pages_per_second"):
        assert got[name] is None
    assert "AUC –" in page_of(report).text


def test_a_replay_without_training_reports_its_data_alone(tmp_path: Path) -> None:
    report = build_report(facts(), [])
    got = read_json(report, tmp_path)
    assert (got["model"], got["auc"], got["weights_sha256"], got["segments"]) == (None,) * 4
    assert (got["pages"], got["impressions"], got["clicks"]) == (600, 6000, 1497)
    text = page_of(report).text
    assert "Calibration" not in text
    assert "hdmi cable" in text


def test_report_json_reads_back_as_it_was(tmp_path: Path) -> None:
    report = build_report(facts(), [model_of("lr", 1), model_of("dnn", 2)])
    write_report(tmp_path, report)
    assert msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=Report) == report


def test_the_page_shows_the_numbers_of_the_json() -> None:
    report = build_report(facts(), [model_of("lr", 1)])
    text = page_of(report).text
    for shown in (
        f"AUC {report.auc:.4f} 2nd half {report.second_half.auc:.4f}",
        f"Page GAUC {report.gauc:.4f} 2nd half {report.second_half.gauc:.4f}",
        f"Log loss {report.log_loss:.4f} normalised {report.normalized_entropy:.4f}",
        f"Calibration {report.calibration:.3f}",
        "Pages 600 6,000 impressions",
        "Speed 50 pages/s in 12.0 s",
        f"new users {report.segments.new.pages} ",
        # The second query's rates by level, from its counts: 2 of 5, 20 of 100, 40 of 200; level 1 never shown.
        "mouse – 40.0 % 2 of 5 20.0 % 20 of 100 20.0 % 40 of 200",
        "wrong_type 8 json 3",
        "attribution_window 120.0",
        "e1" * 32,
        "a2" * 32,
        "01" * 32,
    ):
        assert shown in text


def test_queries_beyond_the_first_twelve_unfold() -> None:
    queries = [QueryPreference(query=f"query {i}", impressions=(1, 1, 1, 20), clicks=(0, 0, 0, 5)) for i in range(15)]
    text = page_of(build_report(facts(top_queries=queries), [])).text
    shown, folded = text.split(" 3 more ")
    assert "query 11" in shown
    assert "query 12" not in shown
    assert "query 14" in folded
    assert " more " not in page_of(build_report(facts(), [])).text


def test_where_records_ended_is_shown_with_the_check_that_it_adds_up() -> None:
    text = page_of(build_report(facts(), [])).text
    assert "every record accounted for" in text
    assert "sum 620 ✓ 620 received" in text
    assert "sum 1,530 ✓ 1,530 received" in text
    assert "late 9 0.59 %" in text
    assert "2,153 records = 620 pages + 1,530 clicks + 3 unreadable" in text


def test_records_that_are_unaccounted_for_are_not_hidden() -> None:
    lost = Outcomes(PageOutcomes(620, 598, 4, 2, 9, 7), ClickOutcomes(1531, 1497, 8, 9, 6, 4, 2, 3, 1), 3)
    text = page_of(build_report(facts(outcomes=lost), [])).text
    assert "records unaccounted for" in text
    assert "sum 1,530 ✗ but 1,531 received" in text
    assert "every record accounted for" not in text


def test_text_from_outside_cannot_become_markup() -> None:
    queries = [QueryPreference(query=NASTY, impressions=(0, 0, 0, 20), clicks=(0, 0, 0, 5))]
    models = [
        msgspec.structs.replace(model_of(f"m{i}", i, pages=60), model=NASTY, weights_sha256=NASTY) for i in (1, 2)
    ]
    report = build_report(
        facts(top_queries=queries, dead_letters={NASTY: 1}, config={NASTY: NASTY, "deep": {NASTY: [NASTY]}}), models
    )
    source = render(report)
    page = Page(source)
    assert "script" not in page.tags
    assert not [value for name, value in page.attributes if name.startswith("on")]
    assert page.text.count("<script>alert('x')</script>") >= 7
    assert not re.search(r"[\x00-\x08\x0b\x0e-\x1f]", source)


def test_the_page_loads_nothing_from_anywhere() -> None:
    page = page_of(build_report(facts(), [model_of("lr", 1), model_of("dnn", 2)]))
    assert not {"script", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "srcset", "data"} & {name for name, _ in page.attributes}
    # An icon that is in the page: none.
    assert [value for name, value in page.attributes if name == "href"] == ["data:,"]
    source = render(build_report(facts(), [model_of("lr", 1)]))
    assert "url(" not in source
    assert "@import" not in source


def test_several_models_stand_side_by_side_with_the_best_marked_but_not_the_oracle() -> None:
    better, worse = sorted((model_of("a", 1), model_of("b", 2)), key=lambda model: model.auc, reverse=True)
    oracle = msgspec.structs.replace(better, model="oracle", auc=0.99, weights_sha256=None)
    source = render(build_report(facts(), [worse, better, oracle]))
    assert "Models side by side" in source
    marked = re.findall(r'<td class="best"><span data-stat="[^"]+">([0-9.]+)</span>', source)
    assert f"{better.auc:.4f}" in marked
    assert f"{worse.auc:.4f}" not in marked
    assert "0.9900" in source
    assert "0.9900" not in marked
    assert "Models side by side" not in render(build_report(facts(), [better]))


def test_every_chart_point_carries_its_numbers() -> None:
    report = build_report(facts(), [model_of("lr", 1)])
    source = render(report)
    first = report.timeline[0]
    assert f"all pages: AUC {first.all.auc:.4f}\n" in source
    assert f"{first.all.pages} pages, {first.all.clicks} clicks" in source
    point = report.calibration_curve[0]
    assert f"predicted {100 * point.predicted:.2f} %, observed {100 * point.observed:.2f} %" in source


def test_with_hardly_any_clicks_the_page_says_so_instead_of_drawing_noise() -> None:
    few = Quality()
    few.add_batch(
        np.zeros(30),
        np.tile(np.array([1, 0, 0], np.uint8), 10),
        np.array([0, 30]),
        user_activity=np.zeros(1, np.int64),
        levels=np.ones(30, np.uint8),
        positions=np.arange(1, 31),
        closes_at=np.full(1, START),
    )
    text = page_of(build_report(facts(), [model_report("lr", few.summary(), None)])).text
    assert "Nothing to draw yet: no interval has 20 clicks." in text


def test_a_report_that_cannot_be_written_is_a_clear_error_and_leaves_the_last_one_whole(tmp_path: Path) -> None:
    report = build_report(facts(), [])
    write_report(tmp_path, report)
    before = (tmp_path / "report.json").read_bytes()
    (tmp_path / "report.json.new").mkdir()
    with pytest.raises(PrectrError, match=r"cannot write the report .*report\.json: .*--run-dir"):
        write_report(tmp_path, build_report(facts(seconds=1.0), []))
    assert (tmp_path / "report.json").read_bytes() == before
