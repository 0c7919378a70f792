"""`prectr replay`, `verify`, `state` and `demo`, as a user calls them."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from prectr.ops.commands.pipeline.demo import CANDIDATES
from testkit.command import prectr, read_written_examples, run_replay_command, write_log
from testkit.oracle.oracle import expected_replay as brute_force
from tests.kit.stages.events import DAY, MINUTE, WINDOW, T, click, page
from tests.oracle.world import Disorder, make_world

DISORDER = Disorder(pages=150, users=15, gap=20.0, malformed=0.05)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, and a finished run of it without a model."""
    folder = tmp_path_factory.mktemp("made")
    lines = make_world(3, DISORDER)
    for number in range(12):
        ts, user = T + 30 * DAY + number * MINUTE, f"v{number}"
        lines += [page(f"cable{number}", user, ts, query="USB Cable"), click(f"cable{number}", user, ts + 1)]
    write_log(folder / "log.jsonl", lines)
    run_replay_command(
        folder / "log.jsonl",
        "--no-train",
        "--partitions",
        "2",
        "--examples",
        folder / "out.jsonl.gz",
        "--json",
        folder / "report.json",
        run_dir=folder / "run",
    )
    return folder


def expected(folder: Path) -> dict[str, Any]:
    return brute_force((folder / "log.jsonl").read_bytes().splitlines(), 2)


# --- replay --------------------------------------------------------------------------------------------------------


def test_replay_writes_examples_dead_letters_and_the_report_for_a_program(made: Path) -> None:
    oracle = expected(made)
    report = json.loads((made / "report.json").read_bytes())
    assert report == json.loads((made / "run" / "report.json").read_bytes())
    assert report["outcomes"] == oracle["outcomes"]
    assert report["pages"] == len(oracle["examples"])
    assert read_written_examples(made / "out.jsonl.gz") == oracle["examples"]
    assert len((made / "run" / "dead-letters.jsonl").read_bytes().splitlines()) == len(oracle["dead"]) > 0
    assert (made / "run" / "report.html").stat().st_size > 1000


def test_replay_prints_record_outcomes_and_the_report_path(made: Path, tmp_path: Path) -> None:
    done = prectr("replay", made / "log.jsonl", "--no-train", "--partitions", "2", "--run-dir", tmp_path / "run")
    outcomes = expected(made)["outcomes"]
    assert f"{outcomes['clicks']['joined']:,} clicks joined" in done.stdout
    assert f"Dead letters: {len(expected(made)['dead']):,}." in done.stdout
    assert f"report: {tmp_path / 'run' / 'report.html'}" in done.stdout
    assert "replay: 100 %" in done.stderr


def test_two_models_share_one_pass_and_one_order_of_flags(made: Path, tmp_path: Path) -> None:
    """Both are in the table and in the report; the settings of the flags are in it too."""
    flags = ["--model", "lr, dnn", "--batch-pages", "8", "--batch-span", "1h", "--seed", "7", "--partitions", "2"]
    done = prectr("replay", made / "log.jsonl", *flags, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert [row["model"] for row in report["models"]] == ["lr", "dnn"]
    assert all(row["weights_sha256"] for row in report["models"])
    rows = [line for line in done.stdout.splitlines() if " lr " in line or " dnn " in line]
    assert len(rows) == 2
    for row, model in zip(rows, report["models"], strict=True):
        assert f"{model['auc']:.4f}" in row
    assert report["examples_sha256"] == json.loads((made / "report.json").read_bytes())["examples_sha256"]
    settings = report["config"]
    assert (settings["batch_pages"], settings["batch_span"], settings["seed"]) == (8, 3600, 7)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--model", "lr,lr"], 2, "a model is named twice"),
        (["--model", "nonsense"], 2, "nonsense"),
        (["--batch-span", "soon"], 2, "soon"),
        (["--partitions", "0"], 2, "partitions"),
        (["--no-train", "--restart", "--config", "missing.toml"], 2, "missing.toml"),
        (["--no-train", "--partitions", "2"], 2, "was started with an examples file"),
    ],
)
def test_wrong_use_is_one_clear_line(made: Path, flags: list[str], code: int, said: str) -> None:
    done = prectr("replay", made / "log.jsonl", "--run-dir", made / "run", *flags)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_log_is_one_clear_line(tmp_path: Path) -> None:
    done = prectr("replay", tmp_path / "missing.jsonl", "--no-train", "--run-dir", tmp_path / "run")
    assert done.returncode == 1, done.stderr
    assert "missing.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


# --- verify --------------------------------------------------------------------------------------------------------


def test_verify_lists_its_checks_and_fails_where_one_does_not_hold(made: Path, tmp_path: Path) -> None:
    done = prectr("verify", "--run-dir", made / "run", "--json", tmp_path / "checks.json")
    assert done.returncode == 0, done.stderr
    checks = json.loads((tmp_path / "checks.json").read_bytes())
    assert all(check["holds"] for check in checks)
    assert len(checks) == sum(line.startswith(("│ ok", "| ok")) for line in done.stdout.splitlines())
    damaged = Path(shutil.copytree(made / "run", tmp_path / "run"))
    (damaged / "dead-letters.jsonl").write_bytes(b"")
    done = prectr("verify", "--run-dir", damaged)
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert f"1 of {len(checks)} checks failed, first dead-letters.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


def test_verify_of_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    done = prectr("verify", "--run-dir", tmp_path)
    assert done.returncode == 1
    assert "contains no checkpoint of a replay" in done.stderr


# --- state ---------------------------------------------------------------------------------------------------------


def test_state_show_prints_what_the_run_knows_of_a_query(made: Path, tmp_path: Path) -> None:
    done = prectr("state", "show", " usb  CABLE", "--run-dir", made / "run", "--json", tmp_path / "entry.json")
    assert done.returncode == 0, done.stderr
    entry = json.loads((tmp_path / "entry.json").read_bytes())
    # A minute apart with a window of two: the last page sees the pages up to two before it.
    assert WINDOW == 2 * MINUTE
    assert entry["totals"] == [10, 0, 0, 10, 0, 0, 0, 10]
    assert entry["unapplied_pages"] == 2
    rows = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if line.count("│") > 5}
    assert "1.0000" in rows["4"]
    assert "0.0000" in rows["1"]
    assert "–" in rows["2"]
    assert "2 closed pages (4 impressions, 2 clicks) are not applied yet" in done.stdout
    assert "Last clicks, newest first" in done.stdout
    assert done.stdout.count("level 4") == 10


def test_state_show_of_an_unknown_query_says_so(made: Path) -> None:
    done = prectr("state", "show", "never asked", "--run-dir", made / "run")
    assert done.returncode == 1
    assert "'never asked' is not in" in done.stderr
    assert "Traceback" not in done.stderr


# --- demo ----------------------------------------------------------------------------------------------------------


def test_demo_compares_every_model_with_the_oracle_and_verifies(tmp_path: Path) -> None:
    done = prectr("demo", "--pages", "150", "--run-dir", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert "simulated users" in done.stdout
    assert "Chorus" in done.stdout
    report = json.loads((tmp_path / "demo" / "report.json").read_bytes())
    models = [row["model"] for row in report["models"]]
    assert models == ["prectr-v2", "prectr", "wide-deep+", "wide-deep", "dnn", "lr", "oracle"]
    assert report["pages"] >= 145
    auc = {row["model"]: row["auc"] for row in report["models"]}
    assert auc["oracle"] == max(auc.values())
    for value in auc.values():
        assert f"{value:.4f}" in done.stdout
    assert report["config"]["level_source"] == "inferred"
    assert (tmp_path / "demo" / "report.html").exists()
    assert prectr("verify", "--run-dir", tmp_path / "demo").returncode == 0
    # It ends with a ranking, which the command that it names repeats.
    assert "'wireless mouse' for u1167" in done.stdout
    (named,) = (line for line in done.stdout.splitlines() if line.startswith("Ranked by: prectr "))
    again = prectr(*shlex.split(named.removeprefix("Ranked by: prectr ")), "--json", tmp_path / "ranking.json")
    assert again.returncode == 0, again.stderr
    assert again.stdout in done.stdout
    ranked = json.loads((tmp_path / "ranking.json").read_bytes())["ranked"]
    assert {each["item_id"] for each in ranked} == {item.item_id for item in CANDIDATES}
