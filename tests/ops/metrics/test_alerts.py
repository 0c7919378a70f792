"""Alerts and recording rules: each fires and stays quiet, asks for what is exported, and is in the runbook."""

import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml

import prectr.ops.dashboards
from prectr.ops.cli.main import COMMANDS, load_command
from prectr.stream.events.decode import Reason
from tests.kit.observe.promql import RULES, alerts, exporter_metrics_of, recording_rules, rules, unknown_parts
from tests.kit.observe.promtool import promtool

TESTS = sorted((RULES.parent / "tests").glob("*.yml"))
RUNBOOK = RULES.parents[2] / "docs" / "runbook.md"
BOARDS = Path(prectr.ops.dashboards.__file__).parent
ISSUED = [alert["alert"] for alert in alerts()]


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_each_alert_fires_and_stays_quiet_as_its_tests_say(path: Path) -> None:
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_test_that_fires_each_alert_and_one_that_does_not() -> None:
    cases = [
        case
        for path in TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(ISSUED)
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(ISSUED)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_use_only_exported_metrics(rule: dict[str, Any]) -> None:
    assert list(unknown_parts(rule["expr"])) == []


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_each_alert_has_for_severity_and_runbook_link(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d+[smh]", alert["for"])
    assert alert["labels"]["severity"] in {"critical", "warning"}
    said = alert["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url", "dashboard"}
    assert said["summary"]
    assert said["description"].endswith(".")
    assert said["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_each_alert_links_to_a_panel_of_its_metric(alert: dict[str, Any]) -> None:
    uid, number = re.fullmatch(r"/d/([a-z-]+)\?viewPanel=(\d+)", alert["annotations"]["dashboard"]).groups()  # type: ignore[union-attr]
    board = json.loads((BOARDS / f"{uid.removeprefix('prectr-')}.json").read_text())
    assert board["uid"] == uid
    (panel,) = [panel for panel in board["panels"] if panel["id"] == int(number)]
    shown = set().union(
        *(exporter_metrics_of(target["expr"].replace("$__rate_interval", "1m")) for target in panel["targets"])
    )
    assert exporter_metrics_of(alert["expr"]) & shown


def test_every_recording_rule_is_used() -> None:
    boards = " ".join(path.read_text() for path in BOARDS.glob("*.json"))
    for record in recording_rules():
        others = [rule["expr"] for rule in rules() if rule.get("record") != record]
        assert record in boards or any(record in expr for expr in others), record


def sections() -> dict[str, str]:
    """The runbook's text by heading."""
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_alert_has_its_section_of_the_runbook_and_each_section_but_the_last_its_alert() -> None:
    assert list(sections()) == [*ISSUED, "Starting over"]
    for name, text in list(sections().items())[:-1]:
        for part in ("**What it means.**", "**What to look at.**", "**What to do.**"):
            assert part in text, name


def commands() -> list[list[str]]:
    """Every `prectr` command of the runbook, in a block of its own or within a line."""
    text = RUNBOOK.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^ *(?:\.venv/bin/)?prectr (.+)$", text, re.MULTILINE)
    inline = re.findall(r"`prectr ([^`]+)`", text)
    return [shlex.split(found, comments=True) for found in [*blocks, *inline]]


def test_every_command_of_the_runbook_is_one_that_is_there_with_these_flags() -> None:
    assert len(commands()) > 10
    for name, *args in commands():
        assert name in COMMANDS
        _check(load_command(name), name, args)


def _check(command: click.Command, name: str, args: list[str]) -> None:
    if hasattr(command, "commands"):
        assert args, f"{name} wants one of {list(command.commands)}"
        assert args[0] in command.commands, f"prectr {name} has no command {args[0]}"
        _check(command.commands[args[0]], f"{name} {args[0]}", args[1:])
        return
    # Flags alone: a command that is only named needs no arguments.
    flags = [arg for arg in args if arg.startswith("-")]
    known = {option for parameter in command.params for option in parameter.opts}
    for flag in flags:
        assert flag.partition("=")[0] in known, f"prectr {name} has no {flag}"
    if len(args) > len(flags):
        command.make_context(name, list(args), resilient_parsing=False).close()


def test_reasons_that_the_runbook_names_are_reasons_of_dead_letters() -> None:
    named = {after for args in commands() for flag, after in itertools.pairwise(args) if flag == "--reason"}
    assert named
    assert named <= set(get_args(Reason))


def test_expressions_of_the_runbook_parse_in_prometheus(tmp_path: Path) -> None:
    exprs = re.findall(
        r"^(?:    )?promtool query instant http://127\.0\.0\.1:9090 '(.+)'$", RUNBOOK.read_text(), re.MULTILINE
    )
    assert exprs
    for expr in exprs:
        assert list(unknown_parts(expr)) == []
    path = tmp_path / "runbook.yml"
    made = [{"record": f"runbook:n{number}", "expr": expr} for number, expr in enumerate(exprs)]
    path.write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": made}]}))
    assert promtool("check", "rules", "--lint=none", path).returncode == 0


def test_the_metrics_named_in_the_runbook_are_exported() -> None:
    for name in set(re.findall(r"(?<![:/])\bprectr_[a-z_]+\b(?![:.])", RUNBOOK.read_text())):
        assert list(unknown_parts(name)) == [], name
