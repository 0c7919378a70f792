"""`prectr convert` as it is called: exit codes, messages, files."""

import json
from pathlib import Path

import pytest

from prectr.ops.cli.main import main
from testkit.command import prectr
from tests.stream.convert.conversion import T, events_in, write_lines
from tests.stream.convert.test_event_log import MAPPING, searches


def test_a_log_is_converted_and_counted(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(MAPPING)
    rows = [*searches(30), {"sid": "\x1b[31m", "uid": "u", "ts": "\x1b]0;title\x07", "items": ["a"]}]
    path = write_lines(tmp_path / "in.jsonl", rows)
    counts, log = tmp_path / "counts.json", tmp_path / "log.jsonl.gz"
    done = prectr("convert", tmp_path / "m.toml", path, "--out", log, "--json", counts)
    assert done.returncode == 0, done.stderr
    assert "31 rows: 30 pages with 150 impressions, 30 clicks" in done.stdout
    assert f"1 invalid_time: '\\x1b]0;title\\x07' is neither a number nor ISO 8601 ({path} line 31)" in done.stdout
    assert f"Next: prectr replay {log} --run-dir run" in done.stdout
    assert "\x1b" not in done.stdout
    found = json.loads(counts.read_bytes())
    assert (found["rows"], found["pages"], found["clicks"], found["clicks_on_page"]) == (31, 30, 30, None)
    assert found["skipped"]["invalid_time"]["count"] == 1


def test_a_log_without_a_page_is_a_failure(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [{"a": 1}])
    done = prectr("convert", "ubi", path, "--out", tmp_path / "log.jsonl")
    assert done.returncode == 1
    assert "no page was converted" in done.stderr
    assert "1 missing_query_id" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ubi", "in.jsonl"], 2, "--out"),
        (["ubi", "in.jsonl", "--out", "log.csv"], 2, "must end in one of"),
        (["solr", "in.jsonl", "--out", "log.jsonl"], 2, "no mapping file"),
        (["none.toml", "in.jsonl", "--out", "log.jsonl"], 2, "none.toml cannot be read"),
        (["ubi", "in.jsonl", "--out", "log.jsonl", "--catalogue", "in.jsonl"], 2, "--catalogue belongs to --draft"),
        (["ubi", "in.jsonl", "--draft"], 2, "ends in .toml"),
        (["new.toml", "in.jsonl", "--draft", "--out", "log.jsonl"], 2, "leave out --out"),
        (["old.toml", "in.jsonl", "--draft"], 2, "exists"),
        (["ubi", "none.jsonl", "--out", "log.jsonl"], 1, "none.jsonl does not exist"),
        (["new.toml", "none.csv", "--draft"], 1, "none.csv"),
        (["ubi", "folder", "--out", "log.jsonl"], 1, "is a folder"),
        (["new.toml", "empty.csv", "--draft"], 1, "no header row"),
    ],
)
def test_wrong_use_and_failures_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_lines(Path("in.jsonl"), [{"a": 1}])
    Path("old.toml").touch()
    Path("empty.csv").touch()
    Path("folder").mkdir()
    before = sorted(Path().iterdir())
    monkeypatch.setattr("sys.argv", ["prectr", "convert", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    errors = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == code, errors
    assert message in errors
    assert "a mistake in prectr itself" not in errors
    assert sorted(Path().iterdir()) == before


def test_a_draft_that_converts_nothing_is_a_failure(tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "a.jsonl", [{"ts": T, "user_id": None, "search_id": 1, "item_id": "a"}])
    done = prectr("convert", tmp_path / "m.toml", rows, "--draft")
    assert done.returncode == 1
    assert "is written, but converts no page" in done.stderr
    assert (tmp_path / "m.toml").exists()


def test_a_draft_is_written_shown_and_converts_its_input(tmp_path: Path) -> None:
    (tmp_path / "searches.csv").write_text(
        "search_id,user_id,query,ts,items,clicked_items\n"
        + "".join(f"{n},u{n % 3},red shoe,{T // 1000 + n},i1|i2|i3,{'i2|i3' if n == 4 else 'i2'}\n" for n in range(20))
    )
    (tmp_path / "items.csv").write_text("sku,name,price\ni1,Shoe,9.5\ni2,Boot,20\ni3,Hat,3\n")
    mapping, rows = tmp_path / "m.toml", tmp_path / "searches.csv"
    drafted = prectr("convert", mapping, rows, "--draft", "--catalogue", tmp_path / "items.csv")
    assert drafted.returncode == 0, drafted.stderr
    assert mapping.read_text() in drafted.stdout
    assert drafted.stdout.count('{"type":') == 3
    assert "20 rows: 20 pages with 60 impressions, 21 clicks" in drafted.stdout
    done = prectr("convert", mapping, rows, "--out", tmp_path / "log.jsonl")
    assert done.returncode == 0, done.stderr
    first = events_in(tmp_path / "log.jsonl")[0]
    assert first["items"][1] == {"item_id": "i2", "title": "Boot", "price": 20.0}
