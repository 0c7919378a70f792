"""The command `prectr simulate`."""

from pathlib import Path

import msgspec
import typer
from typer.testing import CliRunner

from prectr.ops.commands.data.simulate import simulate


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(simulate)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_simulate_writes_log_truth_and_json(tmp_path: Path) -> None:
    out, truth, found = tmp_path / "log.jsonl.gz", tmp_path / "truth.parquet", tmp_path / "found.json"
    code, output = run(
        *("--pages", "200", "--seed", "3", "--catalogue", "chorus", "--days", "1"),
        *("--out", str(out), "--truth", str(truth), "--json", str(found)),
    )
    assert code == 0, output
    assert "200 pages" in output
    assert out.exists()
    assert truth.exists()
    result = msgspec.json.decode(found.read_bytes())
    assert result["pages"] == 200
    assert result["world"]["catalogue"] == "chorus"


def test_help_shows_an_example() -> None:
    code, output = run("--help")
    assert code == 0
    assert "prectr simulate --pages 20000" in output
