"""What the monitor serves: page, JSON and metrics say the same, to promtool's satisfaction and without a traceback."""

import http.client
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from typing import Any

import pytest

from prectr.ops.metrics.exporter import Exporter
from prectr.ops.monitor.current_quality import LIVENESS_TIMEOUT, MonitorSnapshot
from prectr.ops.monitor.metrics import monitor_metrics
from prectr.ops.monitor.quality_table import QualityTable
from prectr.ops.monitor.server import PageServer
from prectr.state.errors import PrectrError, UsageError
from tests.kit.observe.scrape import ALLOWED_LABELS, Samples, exposition, scrape_samples
from tests.ops.monitor.test_quality_table import HEAD, entry, record

NOW = 1_700_000_100.0
FIGURES = ("auc", "gauc", "log_loss", "normalized_entropy", "calibration", "pages", "impressions", "clicks")


def reading(reader_state: str = "reading", **rejected: int) -> MonitorSnapshot:
    """Two models: one with a record 20 s ago, one without a record for an hour."""
    board = QualityTable()
    for age in range(0, 400, 3):
        board.put(entry(record(HEAD - age, age, pages=12), round((NOW - 20) * 1000)))
    board.put(entry(record(HEAD - 90, 7, run="dnn-<b>", model="dnn & co"), round((NOW - 3600) * 1000)))
    return MonitorSnapshot(
        status=reader_state,
        received=140,
        rejected=rejected,
        retained_windows=board.retained_windows,
        sources=board.sources(),
        quality=board.quality(),
    )


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer(0, "127.0.0.1", clock=lambda: NOW) as server:
        yield server


def get(server: PageServer, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def health(server: PageServer, path: str = "/health") -> tuple[int, str]:
    """Status code and text of a health endpoint."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


class Page(HTMLParser):
    """Figures by their names, the visible text, and every address that the page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.figures: dict[str, str] = {}
        self.text = ""
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self._figure: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self._figure = named.get("data-stat")
        for name in ("src", "href"):
            address = named.get(name)
            if address is not None and tag != "a":
                self.fetched.append(address)

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._figure is not None:
            self.figures[self._figure] = data
            self._figure = None


def shown(figures: dict[str, Any], name: str) -> str:
    value = figures[name]
    if value is None:
        return "–"
    if name in ("pages", "impressions", "clicks"):
        return f"{value:,}"
    return f"{value:.3f}" if name == "calibration" else f"{value:.4f}"


def test_every_number_on_the_page_matches_the_json(server: PageServer) -> None:
    server.update(reading())
    page, now = Page(get(server, "/")), json.loads(get(server, "/quality.json"))
    found = {}
    for model in now["models"]:
        for segment in ("all", "new", "low", "active"):
            for window, name in [(window, name) for window in model["windows"] for name in ("auc", "gauc")] + [
                ("1h", name) for name in FIGURES[2:]
            ]:
                found[f"{model['model']}/{segment}/{window}/{name}"] = shown(model["windows"][window][segment], name)
    assert page.figures == found
    assert len(found) == 2 * 4 * (4 * 2 + 6)
    assert page.tags.count("polyline") == 2 * 4
    assert "1 of 2 trainers alive" in page.text
    assert "dnn-<b>" in page.text


def test_the_page_is_one_file_and_runs_nothing(server: PageServer) -> None:
    server.update(reading())
    text = get(server, "/")
    page = Page(text)
    assert page.fetched == ["data:,"]
    assert "script" not in page.tags
    assert not re.search(r"https?://|@import|url\(", text)


def test_the_page_says_how_many_records_were_rejected_and_why(server: PageServer) -> None:
    server.update(reading(range=1_200, time=1))
    text = Page(get(server, "/")).text
    assert "1,200 range, 1 time." in text
    assert "range: a number or name that no trainer sends" in text
    assert "time: of a time that has not come yet" in text
    assert "offset" in text


def test_before_any_record_the_page_says_what_it_waits_for(server: PageServer) -> None:
    assert health(server) == (503, "starting")
    assert health(server, "/readyz") == (503, "starting\n")
    server.update(
        MonitorSnapshot(status="reading", received=0, rejected={}, retained_windows=0, sources=[], quality={})
    )
    page = Page(get(server, "/")).text
    assert "No trainer has published yet" in page
    assert "nothing published yet" in page
    now = json.loads(get(server, "/quality.json"))
    assert (now["models"], now["sources"], now["last_checkpoint_time"]) == ([], [], None)


def test_sources_are_alive_while_they_send(server: PageServer) -> None:
    server.update(reading(corrupt=3, version=1))
    now = json.loads(get(server, "/quality.json"))
    assert {source["model"]: source["alive"] for source in now["sources"]} == {"lr": True, "dnn & co": False}
    assert {source["model"]: source["last_record_age_seconds"] for source in now["sources"]} == {
        "lr": 20.0,
        "dnn & co": 3600.0,
    }
    assert now["rejected"] == {"corrupt": 3, "version": 1}
    assert "3 corrupt, 1 version" in Page(get(server, "/")).text


@pytest.mark.parametrize(
    ("status", "later", "verdict", "code"),
    [
        ("reading", 0, "✓ reading", 200),
        # The trainers' absence is no fault of the monitor, and has alerts of its own.
        ("reading", 60, "✗ no trainer is alive", 200),
        ("waiting for Kafka", 0, "✗ waiting for Kafka", 503),
        ("restoring tables", 0, "✗ restoring tables", 503),
        ("standby: another monitor is reading", 0, "✗ standby: another monitor is reading", 503),
    ],
)
def test_page_and_health_tell_whether_all_is_well(status: str, later: float, verdict: str, code: int) -> None:
    with PageServer(0, "127.0.0.1", clock=lambda: NOW + later) as server:
        server.update(reading(status))
        assert verdict in Page(get(server, "/")).text
        assert health(server) == (code, status)
        assert health(server, "/readyz") == (code, "ready\n" if code == 200 else f"{status}\n")
        # A probe for liveness must not end a monitor because Kafka is away.
        assert health(server, "/healthz") == (200, "ok\n")


def test_what_is_not_there_is_not_found(server: PageServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as found:
        get(server, "/else")
    assert found.value.code == 404
    assert "/quality.json" in found.value.read().decode()


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_cannot_be_is_wrong_use(port: int) -> None:
    with pytest.raises(UsageError, match=f"port {port} is out of range"):
        PageServer(port, "127.0.0.1")


def test_a_foreign_address_or_a_port_in_use_is_reported(server: PageServer) -> None:
    with pytest.raises(PrectrError, match=r"192\.0\.2\.1.*use an address of this machine"):
        PageServer(0, "192.0.2.1")
    with pytest.raises(PrectrError, match=r"has the port: choose another --port"):
        PageServer(server.port, "127.0.0.1")


def exported(given: MonitorSnapshot) -> tuple[Samples, str]:
    with Exporter(partial(monitor_metrics, clock=lambda: NOW), 0) as exporter:
        exporter.update(given)
        return scrape_samples(exporter.port), exposition(exporter.port)


def test_the_metrics_match_the_json_and_its_sums(server: PageServer) -> None:
    given = reading()
    server.update(given)
    samples, _ = exported(given)
    names = ("prectr_auc", "prectr_gauc", "prectr_log_loss", "prectr_normalized_entropy", "prectr_calibration_ratio")
    for model in json.loads(get(server, "/quality.json"))["models"]:
        for window, segments in model["windows"].items():
            for segment, figures in segments.items():
                labels = frozenset({("model", model["model"]), ("segment", segment), ("window", window)})
                for metric, name in zip(names, FIGURES, strict=False):
                    assert samples.get((metric, labels)) == figures[name]
        whole = given.quality[model["model"]].windows["run"]["new"]
        labels = frozenset({("model", model["model"]), ("segment", "new")})
        assert samples["prectr_gauc_weighted_total", labels] == whole.gauc_sum
        assert samples["prectr_scored_pages_total", labels] == whole.pages
        assert (
            samples["prectr_quality_timestamp_seconds", frozenset({("model", model["model"])})] * 1000
            == model["event_time_end"]
        )


def test_a_model_whose_trainer_is_gone_shows_a_growing_record_age() -> None:
    samples, _ = exported(reading())
    lr, gone = frozenset({("model", "lr")}), frozenset({("model", "dnn & co")})
    assert LIVENESS_TIMEOUT == 45
    assert samples["prectr_live_trainers", lr] == 1
    assert samples["prectr_live_trainers", gone] == 0
    assert samples["prectr_quality_last_record_age_seconds", gone] == 3600
    # Each record carries the time of the checkpoint: here, a second for each minute since 1970.
    assert samples["prectr_published_checkpoint_age_seconds", lr] == NOW - HEAD


def test_the_metrics_keep_the_conventions() -> None:
    samples, text = exported(reading(version=2))
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (\S.*)$", text, re.MULTILINE))
    assert samples["prectr_quality_records_rejected_total", frozenset({("reason", "version")})] == 2
    for name, labels in samples:
        assert re.fullmatch(r"prectr_[a-z_]+", name)
        assert {label for label, _ in labels} <= ALLOWED_LABELS
        assert kinds[name] == ("counter" if name.endswith("_total") else "gauge")
        assert helps[name].endswith(".")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: it is in Debian's package prometheus")
def test_promtool_finds_nothing_to_say() -> None:
    _, text = exported(reading(corrupt=1))
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
