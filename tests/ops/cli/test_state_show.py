"""`prectr state show`: the counts of a query, in all and decayed with each half-life."""

import json
from pathlib import Path

import pytest

from prectr.ops.commands.pipeline.state import show
from prectr.stream.config import PipelineConfig
from testkit.command import write_log
from tests.kit.stages.events import DAY, WINDOW, T, click, page
from tests.kit.stages.replays import replay_to_end


def test_every_level_has_a_row_for_each_half_life(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One page a day apart at the second's close: of the first, 1/16 is left at 6 h, a half at 1 d, 0.906 at 7 d."""
    lines = [
        page("r1", "u", T),
        click("r1", "u", T + 1, "b"),
        page("r2", "v", T + DAY),
        page("r3", "w", T + 2 * DAY),
    ]
    replay_to_end([write_log(tmp_path / "log.jsonl", lines)], tmp_path / "run", config=PipelineConfig(partitions=2))
    show("usb cable", tmp_path / "run", tmp_path / "shown.json")
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert rows[:4] == [
        ["1", "all", "2", "1", "0.5000"],
        ["6h", "1.1", "0.1", "0.0588"],
        ["1d", "1.5", "0.5", "0.3333"],
        ["7d", "1.9", "0.9", "0.4753"],
    ]
    assert rows[4:8] == [["2", "all", "0", "0", "–"], *([each, "0.0", "0.0", "–"] for each in ("6h", "1d", "7d"))]
    assert len(rows) == 16
    found = json.loads((tmp_path / "shown.json").read_bytes())
    assert found["half_lives"] == [21_600.0, 86_400.0, 604_800.0]
    assert (found["updated_at"], found["decayed_to"]) == (T + 2 * DAY + WINDOW, T + DAY + WINDOW)
    shares = (0.0625, 0.5, 0.5 ** (1 / 7))
    for sums, left in zip(found["decayed_sums"], shares, strict=True):
        assert sums == pytest.approx([1 + left, 0, 0, 1 + left, left, 0, 0, 0])
