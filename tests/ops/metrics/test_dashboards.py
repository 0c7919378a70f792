"""The dashboards: up to date, complete, and asking only for what the exporters have."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import prectr.ops.dashboards
from prectr.ops.dashboards import DASHBOARDS
from prectr.ops.dashboards.grafana import dashboard_json
from tests.kit.observe.promql import (
    exported,
    exporter_metrics_of,
    labels_of_rule,
    parse_expression,
    recording_rules,
    unknown_parts,
)
from tests.kit.observe.promtool import promtool

FOLDER = Path(prectr.ops.dashboards.__file__).parent
COLUMNS = 24
NAMES = ["overview", "quality", "pipeline", "training", "state"]


def committed(name: str) -> dict[str, Any]:
    board: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return board


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in committed(name)["panels"] if panel["type"] != "row"]


def filled(expr: str) -> str:
    """An expression with Grafana's variables replaced, as Prometheus is asked it."""
    filled = expr.replace("$__rate_interval", "1m").replace("$model", ".*")
    assert "$" not in filled
    return filled


def expressions(name: str) -> list[str]:
    return [filled(target["expr"]) for panel in panels(name) for target in panel["targets"]]


def test_the_five_are_there_and_are_what_the_code_says() -> None:
    assert [board.name for board in DASHBOARDS] == NAMES
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(NAMES)
    for board in DASHBOARDS:
        assert (FOLDER / f"{board.name}.json").read_text() == dashboard_json(board), (
            "run python -m prectr.ops.dashboards"
        )


@pytest.mark.parametrize("name", NAMES)
def test_grafanas_own_model_reads_them_and_writes_the_same(name: str) -> None:
    board = committed(name)
    assert json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder)) == board


@pytest.mark.parametrize("name", NAMES)
def test_each_panel_has_a_unit_a_description_and_a_query_of_the_chosen_datasource(name: str) -> None:
    board = committed(name)
    assert board["uid"] == f"prectr-{name}"
    assert [each["type"] for each in board["templating"]["list"] if each["name"] == "datasource"] == ["datasource"]
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels(name):
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == source
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert target["expr"].strip()
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique_and_panels_do_not_lie_over_each_other(name: str) -> None:
    everything = committed(name)["panels"]
    ids = [panel["id"] for panel in everything]
    assert len(set(ids)) == len(ids)
    taken: dict[tuple[int, int], str] = {}
    for panel in everything:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        for place in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert place not in taken, f"{panel['title']} lies over {taken[place]}"
            taken[place] = panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_label_and_value_is_one_that_is_exported(name: str) -> None:
    for expr in expressions(name):
        assert parse_expression(expr).selectors, expr
        assert list(unknown_parts(expr)) == []


@pytest.mark.parametrize("name", NAMES)
def test_legends_and_variables_name_labels_that_are_there(name: str) -> None:
    for panel in panels(name):
        for target in panel["targets"]:
            wanted = parse_expression(filled(target["expr"]))
            of_rules = {
                label
                for one in wanted.selectors
                if one.metric in recording_rules()
                for label in labels_of_rule(one.metric)
            }
            for label in re.findall(r"\{\{(.*?)\}\}", target.get("legendFormat", "")):
                assert label in wanted.labels | of_rules, f"{panel['title']}: {label}"
    has = {each["name"] for each in committed(name)["templating"]["list"]}
    uses = set(re.findall(r"\$(\w+)", " ".join(t["expr"] for p in panels(name) for t in p["targets"])))
    assert uses - {"__rate_interval"} == has - {"datasource"}


def test_the_check_finds_what_is_not_exported() -> None:
    assert list(unknown_parts('rate(prectr_event_total{job="stream"}[5m])')) == ["no stream has prectr_event_total"]
    assert list(unknown_parts('prectr_auc{job="stream"}')) == ["no stream has prectr_auc"]
    assert list(unknown_parts('prectr_auc{job="monitor",window="2h"}')) == ["window of prectr_auc is never 2h"]
    assert list(unknown_parts('prectr_auc{job="monitor",level="1"}')) == ["prectr_auc has no label level"]
    assert [text.rpartition(" ")[2] for text in unknown_parts('sum by (stage) (prectr_auc{job="monitor"})')] == [
        "stage"
    ]


def test_promtool_reads_every_expression(tmp_path: Path) -> None:
    everything = [expr for name in NAMES for expr in expressions(name)]
    wrong = tmp_path / "wrong.yml"
    for path, exprs in ((tmp_path / "panels.yml", everything), (wrong, ["sum by (stage (up)"])):
        named = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(exprs)]
        rules = [{**rule, "record": f"panel:n{number}"} for number, rule in enumerate(named)]
        path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
        done = promtool("check", "rules", "--lint=none", path)
        assert (done.returncode == 0) == (path != wrong), done.stderr
        assert (f"{len(exprs)} rules found" in done.stdout) == (path != wrong)


def test_each_dashboard_links_to_the_others() -> None:
    for name in NAMES:
        board = committed(name)
        assert board["tags"] == ["prectr"]
        (link,) = board["links"]
        assert (link["type"], link["tags"], link["keepTime"]) == ("dashboards", ["prectr"], True)


def test_the_dashboards_show_every_metric_but_those_that_are_named_here() -> None:
    """What is exported is shown somewhere; what is not is left out for a reason."""
    shown = set().union(*(exporter_metrics_of(expr) for name in NAMES for expr in expressions(name)))
    served = {metric for job in exported().values() for metric in job}
    left_out = {
        # The transaction and the batch are shown by their quantiles.
        "prectr_microbatch_seconds_sum",
        "prectr_transaction_seconds_sum",
        "prectr_transaction_seconds_count",
        # The trainer's own is shown; this one is for when it is gone (docs/runbook.md).
        "prectr_published_checkpoint_age_seconds",
        # How a monitor is read into: its page says it.
        "prectr_quality_records_received_total",
        "prectr_quality_records_rejected_total",
        "prectr_quality_windows_retained",
        # Told with the dead letters that it leads to (docs/runbook.md).
        "prectr_future_event_lead_seconds",
        # A sum for other spans than those shown.
        "prectr_log_loss_nats_total",
    }
    assert served - shown == left_out


def test_the_command_says_what_is_out_of_date_and_writes_nothing(tmp_path: Path) -> None:
    made = command("--out", str(tmp_path))
    assert made.returncode == 0, made.stderr
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(NAMES)
    assert command("--out", str(tmp_path), "--check").returncode == 0
    (tmp_path / "quality.json").write_text("{}\n")
    (tmp_path / "state.json").unlink()
    stale = command("--out", str(tmp_path), "--check")
    assert stale.returncode == 1
    assert re.findall(r"(\w+)\.json is out of date", stale.stderr) == ["quality", "state"]
    assert (tmp_path / "quality.json").read_text() == "{}\n"
    nowhere = command("--out", str(tmp_path / "none"))
    assert nowhere.returncode == 2
    assert "is not a folder" in nowhere.stderr


def test_without_grafanas_package_the_command_says_what_to_install_and_nothing_else_needs_it() -> None:
    hidden = "import runpy, sys; sys.modules['grafana_foundation_sdk'] = None; "
    done = python(hidden + "sys.argv = ['dashboards']; runpy.run_module('prectr.ops.dashboards', run_name='__main__')")
    assert done.returncode == 1
    assert "pip install -e '.[dev]'" in done.stderr
    assert "Traceback" not in done.stderr
    rest = python(
        hidden + "import prectr.ops.cli.main, prectr.ops.commands.pipeline.run, "
        "prectr.ops.commands.observe.monitor, prectr.ops.dashboards"
    )
    assert rest.returncode == 0, rest.stderr


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "prectr.ops.dashboards", *args)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return run("-c", code)


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], check=False, capture_output=True, text=True, timeout=120)
