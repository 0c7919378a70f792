"""The report of a replay in a real browser: no console errors, and its numbers are those of report.json."""

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from testkit.chromium import NARROW, WIDE, Chrome
from testkit.command import run_replay_command
from tests.browser.reading_figures import equals
from tests.kafka.worlds import simulated

FIGURES = ("auc", "gauc", "log_loss", "normalized_entropy", "calibration")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a replay of two models."""
    folder = tmp_path_factory.mktemp("replay")
    run_replay_command(simulated(folder, pages=600), "--model", "lr,dnn", run_dir=folder / "run")
    return folder / "run"


def at(report: Any, path: str) -> Any:
    for step in path.split("/"):
        report = report[int(step) if isinstance(report, list) else step]
    return report


def test_every_visible_number_matches_the_json(browser: Chrome, run_dir: Path) -> None:
    report = json.loads((run_dir / "report.json").read_bytes())
    browser.open((run_dir / "report.html").as_uri())
    seen = browser.stats()
    for name, text in seen:
        assert equals(text, at(report, name)), (name, text)
    names = {name for name, _ in seen}
    assert names >= {*FIGURES, "pages", "clicks"}
    assert names >= {
        f"models/{number}/segments/{segment}/{what}"
        for number in (0, 1)
        for segment in ("new", "low", "active")
        for what in FIGURES
    }
    assert names >= {"differences/0/difference", "models/1/most_lost/0/lost"}
    assert names >= {f"models/{number}/{what}" for number in (0, 1) for what in FIGURES}
    assert names >= {f"outcomes/pages/{end}" for end in ("emitted", "open", "duplicate", "dead_letter")}
    ends = ("joined", "waiting", "duplicate", "late", "orphan", "foreign", "dead_letter")
    assert names >= {f"outcomes/clicks/{end}" for end in ends}
    assert names >= {f"dead_letters/{reason}" for reason in report["dead_letters"]}
    assert report["dead_letters"]
    assert names >= {
        f"models/0/levels/{level}/auc" for level in report["levels"] if report["levels"][level]["impressions"]
    }
    text = browser.text()
    for chain in ("examples_sha256", "aggregates_sha256", "weights_sha256"):
        assert report[chain] in text
    assert "✓ every record accounted for" in text


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("dark", [False, True])
def test_there_are_no_console_errors_and_nothing_is_clipped(
    browser: Chrome, run_dir: Path, width: int, dark: bool
) -> None:
    browser.prefer_dark(dark)
    browser.open((run_dir / "report.html").as_uri(), width)
    assert browser.console_messages() == []
    assert browser.overflowing() == []
    assert browser.text("h1").startswith("Replay report: ")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""


def test_there_are_no_console_errors_when_it_is_served_over_http(browser: Chrome, run_dir: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(run_dir)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        browser.open(f"http://127.0.0.1:{server.server_port}/report.html")
        assert browser.console_messages() == []
    finally:
        server.shutdown()
        server.server_close()
