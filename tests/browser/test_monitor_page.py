"""The monitor page in a real browser: no console errors, and every number equals that of quality.json."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from prectr.ops.monitor.current_quality import MonitorSnapshot
from prectr.ops.monitor.server import PageServer
from testkit.chromium import NARROW, WIDE, Chrome
from tests.browser.displayed_number import equals
from tests.ops.monitor.test_page import NOW, reading

NOTHING_YET = MonitorSnapshot(status="reading", received=0, rejected={}, retained_windows=0, sources=[], quality={})
WINDOWS = ("5m", "1h", "24h", "run")
OTHERS = ("log_loss", "normalized_entropy", "calibration", "pages", "impressions", "clicks")


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer(0, "127.0.0.1", clock=lambda: NOW) as server:
        server.update(reading(version=3))
        yield server


def url(server: PageServer, path: str = "/") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def quality(server: PageServer) -> dict[str, Any]:
    with urllib.request.urlopen(url(server, "/quality.json"), timeout=10) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def test_every_visible_number_matches_the_json(browser: Chrome, server: PageServer) -> None:
    browser.open(url(server))
    seen, now = dict(browser.stats()), quality(server)
    models = {model["model"]: model["windows"] for model in now["models"]}
    expected = {
        f"{model}/{segment}/{window}/{what}"
        for model in models
        for segment in ("all", "new", "low", "active")
        for window, what in [(window, what) for window in WINDOWS for what in ("auc", "gauc")]
        + [("1h", what) for what in OTHERS]
    }
    assert seen.keys() == expected
    for name, text in seen.items():
        model, segment, window, what = name.split("/")
        assert equals(text, models[model][window][segment][what]), (name, text)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("given", [reading(version=3), reading("waiting for Kafka"), NOTHING_YET])
def test_there_are_no_console_errors_and_nothing_is_clipped(
    browser: Chrome, server: PageServer, given: MonitorSnapshot, width: int, dark: bool
) -> None:
    server.update(given)
    browser.prefer_dark(dark)
    browser.open(url(server), width)
    assert browser.console_messages() == []
    assert browser.overflowing() == []
    assert browser.text("h1") == "Model quality"
