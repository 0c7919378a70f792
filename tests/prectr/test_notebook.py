"""The notebook runs as it stands, from the first cell to the last."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


@pytest.fixture
def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the cells leave behind; the command `prectr` is that of this environment."""
    cells = [cell for cell in json.loads(NOTEBOOK.read_bytes())["cells"] if cell["cell_type"] == "code"]
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    mpl.use("Agg")
    return runpy.run_path(str(script))


def test_every_cell_runs_and_shows_what_it_says(namespace: dict[str, Any]) -> None:
    table, report = namespace["table"], namespace["report"]
    assert table.num_rows == report.impressions > 10_000
    for model in report.models:
        assert 0.5 < model.auc < 1
        assert table[f"score_{model.model}"].null_count == 0
    first, second = (plt.figure(number).axes[0] for number in plt.get_fignums())
    assert list(first.lines[0].get_xdata()) == sorted(set(table["position"].to_pylist()))
    assert len(second.lines) == len(report.models) == 2
    plt.close("all")
    ranking, page = namespace["ranking"], namespace["page"]
    assert {item.item_id for item in ranking.ranked} == {item.item_id for item in page.items}
    assert ranking.ranked[0].click_probability >= ranking.ranked[-1].click_probability > 0
