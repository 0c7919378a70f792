"""`prectr replay` of logs that are not what they should be: what it says, and its exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from testkit.command import prectr
from tests.kit.stages.events import T, click, page


def replay(tmp_path: Path, *args: str | Path) -> tuple[int, str, str]:
    done = prectr("replay", *args, "--no-train", "--partitions", "1", "--run-dir", tmp_path / "run")
    return done.returncode, done.stdout, done.stderr


def lines_of(*events: bytes) -> bytes:
    return b"".join(event + b"\n" for event in events)


def test_a_log_without_a_valid_event_fails_and_says_why(tmp_path: Path) -> None:
    """A misspelt field: the page, a click and a blank line."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines_of(page("r", "u", T).replace(b"user_id", b"userid"), b'{"type": "click"}', b""))
    code, output, complaint = replay(tmp_path, log)
    assert code == 1
    assert "no record of the log is a valid event" in complaint
    assert "missing_field (1): the field `user_id` is missing" in output
    assert f"{log}:1: " in output
    assert "100.0 % of the records are no valid events (3 of 3)" in output
    listed = prectr("dlq", "list", "--run-dir", tmp_path / "run", "--json", tmp_path / "list.json")
    assert listed.returncode == 0, listed.stderr
    narrow = prectr("dlq", "list", "--run-dir", tmp_path / "run", COLUMNS="80").stdout
    assert any(line.split()[:2] == ["missing_field", "2"] for line in narrow.splitlines()), narrow
    assert "the field `user_id` is missing" in narrow
    assert f"missing_field  {log} line 1, " in narrow
    assert json.loads((tmp_path / "list.json").read_bytes())["dead_letters"] == 3


def test_a_log_without_a_valid_page_fails_although_its_clicks_are_valid(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    wrong = page("r", "u", T).replace(b'"items": [{', b'"items": [{"price": "$10.50", ')
    assert b"$10.50" in wrong
    log.write_bytes(lines_of(wrong, click("r", "u", T + 5000)))
    code, output, complaint = replay(tmp_path, log)
    assert code == 1
    assert "no page of the log is a valid event" in complaint
    assert 'price "$10.50" must be a number, without quotes or currency' in output


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("log.jsonl", b"[\n" + page("r", "u", T) + b"\n]\n", "JSON array"),
        ("searches.csv", b"a,b\n1,2\n", "prectr convert"),
    ],
)
def test_what_is_no_log_is_told_before_anything_is_made(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    code, _, complaint = replay(tmp_path, tmp_path / name)
    assert code in (1, 2)
    assert said in complaint
    assert not (tmp_path / "run").exists()


def test_what_is_no_log_is_told_without_loading_torch(tmp_path: Path) -> None:
    """Loading it takes seconds, and most mistakes are in what is given."""
    (tmp_path / "searches.csv").write_bytes(b"a,b\n1,2\n")
    (tmp_path / "array.jsonl").write_bytes(b"[\n" + page("r", "u", T) + b"\n]\n")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "columns.parquet")
    program = "import sys; from prectr.ops.cli.main import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    for name in ("searches.csv", "array.jsonl", "columns.parquet", "absent.jsonl"):
        command = [sys.executable, "-c", program, "replay", name, "--run-dir", "run"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode in (1, 2)
        assert name in done.stderr
        assert done.stdout.split() == ["False"]


def test_pages_and_clicks_in_two_files_are_joined_and_all_is_well(tmp_path: Path) -> None:
    pages, clicks = tmp_path / "pages.jsonl", tmp_path / "clicks.jsonl"
    pages.write_bytes(lines_of(*(page(f"r{n}", f"u{n % 12}", T + n * 30_000) for n in range(60))))
    clicks.write_bytes(lines_of(*(click(f"r{n}", f"u{n % 12}", T + n * 30_000 + 5000) for n in range(60))))
    code, output, _ = replay(tmp_path, pages, clicks)
    assert code == 0
    assert "60 clicks joined" in output
    assert output.strip().split("\n")[-1].startswith("OK: ")
    code, output, _ = replay(tmp_path, pages, clicks, "--order", "given", "--restart")
    assert code == 0
    assert "read them merged by time (--order time)" in output
    assert output.strip().split("\n")[-1].startswith("Completed with 2 warnings")
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert (report["log_order"]["events"], report["log_order"]["behind"]) == (120, 59)
    assert len(report["warnings"]) == 2
