"""What `prectr top` shows of real servers: ours with figures that are known, damaged ones, and ones that are away."""

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prectr.ops.metrics.exporter import Exporter
from prectr.ops.metrics.replay import serve_metrics
from prectr.ops.metrics.train import train_metrics
from prectr.ops.monitor.current_quality import MonitorSnapshot
from prectr.ops.monitor.metrics import monitor_metrics
from prectr.ops.monitor.server import PageServer
from prectr.ops.top.poller import Poller, StatusUpdate
from prectr.ops.top.scrape import monitor_url, scrape_exporter, scrape_monitor
from prectr.ops.top.screen import render, sparkline
from prectr.ops.top.stats import TaskState
from tests.kit.observe.top import UNREACHABLE_URL, TextServer, join_task_metrics, table_row
from tests.ops.metrics.test_live import trained
from tests.ops.metrics.test_replay import quality_of, snapshot_of
from tests.ops.monitor.test_page import NOW, reading


def text_of(seen: StatusUpdate, width: int = 130, height: int = 60, *, whole: bool = False) -> str:
    out = StringIO()
    console = Console(file=out, width=width, height=height, color_system=None, highlight=False)
    console.print(render(seen, console, full=whole))
    return out.getvalue()


def poll_once(urls: Sequence[str], monitor: str = UNREACHABLE_URL, *, named: bool = True) -> StatusUpdate:
    return Poller(urls, monitor, explicit=named).poll()


def test_task_counts_are_summed_and_duplicated_metrics_counted_once() -> None:
    with (
        TextServer(join_task_metrics(0) + join_task_metrics(1)) as one,
        TextServer(join_task_metrics(1, offset=5, pages=90) + join_task_metrics(2)) as two,
    ):
        figures = poll_once([one.url, two.url]).status
    assert figures.pages == {"in": 300, "open": 54, "emitted": 240, "dead_letter": 6}
    assert figures.clicks == {"in": 150, "waiting": 21, "joined": 120, "late": 9}
    assert (figures.unreadable, figures.dead_letters) == (3, {"json": 3})
    assert figures.lag == 10 + 20 + 30
    assert [(task.stage, task.partition, task.offset, task.owners) for task in figures.tasks] == [
        ("join", 0, 130, 1),
        ("join", 1, 130, 2),
        ("join", 2, 130, 1),
    ]


def test_a_tasks_watermark_lag_is_measured_from_the_furthest_watermark() -> None:
    with (
        TextServer(join_task_metrics(0) + join_task_metrics(1, watermark=999_910.0)) as one,
        TextServer(join_task_metrics(2, watermark=4.6e15)) as two,
    ):
        seen = poll_once([one.url, two.url])
    # A log that has ended for good is behind nothing.
    assert [task.watermark_lag_seconds for task in seen.status.tasks] == [0.0, 90.0, None]
    assert seen.status.watermark_lag_seconds == 90.0
    text = text_of(seen)
    assert table_row(text, "join", "1") == "join 1 130 20 1 min 30 s 80 0 12.5 s ago"
    assert table_row(text, "progress") == "progress lag 60 slowest task behind 1 min 30 s checkpoint –"


def test_outcomes_of_things_that_went_wrong_are_shown_only_if_there_are_some() -> None:
    names = ("unreadable", "dead_letter", "late", "json")
    healthy = "\n".join(
        f"{line.rpartition(' ')[0]} 0" if any(f'"{name}"' in line for name in names) else line
        for line in join_task_metrics(0).splitlines()
    )
    with TextServer(healthy) as served:
        text = text_of(poll_once([served.url]))
    assert table_row(text, "pages") == "pages in 100 open 18 emitted 80"
    assert table_row(text, "clicks") == "clicks in 50 waiting 7 joined 40"
    assert "rejected" not in text
    assert "dead letter" not in text


def test_a_trainers_status_matches_its_exporter(tmp_path: Path) -> None:
    with Exporter(partial(train_metrics, clock=lambda: NOW), 0) as exporter:
        exporter.update(trained(tmp_path, NOW - 20))
        seen = poll_once([f"http://127.0.0.1:{exporter.port}/metrics"])
    assert [(each.kind, each.up) for each in seen.status.exporters] == [
        ("train", True),
        ("monitor's page", False),
    ]
    (model,) = seen.status.models
    expected = quality_of(0).segments()
    assert (model.model, model.trained_pages, seen.status.checkpoint_age_seconds) == ("lr", 64, 20)
    assert seen.status.late_records == 5
    for segment in ("all", "new", "low"):
        pair = model.quality[segment]["run"]
        assert (pair.auc, pair.gauc) == (expected[segment].auc, expected[segment].gauc)
    # Nobody is active: there is nothing to say, and a dash says it.
    assert model.quality["active"] == {}
    text = text_of(seen)
    assert f"{expected['new'].auc:.4f}" in table_row(text, "new", "users")
    assert table_row(text, "active", "users") == "active users – –"
    assert "trained 64" in text
    assert "checkpoint 20.0 s ago" in text


def test_the_monitors_windows_and_its_last_day_are_shown() -> None:
    given_reading = reading()
    with PageServer(0, "127.0.0.1", clock=lambda: NOW) as server:
        server.update(given_reading)
        url = f"http://127.0.0.1:{server.port}"
        seen = poll_once([], monitor_url(url))
        quality = server.current_quality()
    by_name = {model.model: model for model in seen.status.models}
    assert by_name.keys() == {"lr", "dnn & co"}
    for model in quality.models:
        for window, segments in model.windows.items():
            pair = by_name[model.model].quality["low"][window]
            assert (pair.auc, pair.gauc) == (segments.low.auc, segments.low.gauc)
        assert [pair.auc for pair in by_name[model.model].timeline["all"]] == [
            point.segments.all.auc if point.segments.all.clicks >= 20 else None for point in model.timeline
        ]
    assert by_name["dnn & co"].checkpoint_age_seconds == max(s.checkpoint_age_seconds for s in quality.sources)
    text = text_of(seen)
    assert "AUC 5m" in text
    assert "GAUC 24h" in text
    assert "last 24 h" in text
    narrow = text_of(seen, width=80)
    assert "5m" not in narrow
    assert "GAUC run" in narrow
    assert max(map(len, narrow.splitlines())) <= 80


def test_a_monitor_before_any_sketch_is_there_and_has_no_model() -> None:
    with PageServer(0, "127.0.0.1", clock=lambda: NOW) as server:
        server.update(
            MonitorSnapshot(status="reading", received=0, rejected={}, retained_windows=0, sources=[], quality={})
        )
        seen = poll_once([], monitor_url(f"http://127.0.0.1:{server.port}"))
    assert [each.up for each in seen.status.exporters] == [True]
    text = text_of(seen)
    assert "No model yet" in text
    assert "Nothing answers" not in text


def test_a_monitor_that_waits_says_what_for() -> None:
    with PageServer(0, "127.0.0.1", clock=lambda: NOW) as server:
        server.update(reading("waiting for Kafka"))
        seen = poll_once([], monitor_url(f"http://127.0.0.1:{server.port}"))
    assert seen.status.exporters[0].up
    assert f"○ monitor's page 127.0.0.1:{server.port} waiting for Kafka" in " ".join(text_of(seen).split())


def test_without_any_process_the_screen_says_what_to_do() -> None:
    text = " ".join(text_of(poll_once(["http://127.0.0.1:1/metrics"])).split())
    assert "0 of 2 up" in text
    assert "No endpoint responds. Start the system with `prectr run" in text


def test_the_monitors_exporter_does_where_its_page_is_away() -> None:
    with Exporter(partial(monitor_metrics, clock=lambda: NOW), 0) as exporter:
        exporter.update(reading())
        seen = poll_once([f"http://127.0.0.1:{exporter.port}/metrics"])
    (other, lr) = seen.status.models
    assert (other.model, lr.model) == ("dnn & co", "lr")
    assert lr.quality["all"].keys() == {"5m", "1h", "24h", "run"}
    assert seen.status.exporters[0].kind == "monitor"
    assert seen.trend_spans["lr"] == "since start"


def test_a_replay_can_be_displayed() -> None:
    with serve_metrics(0) as metrics:
        metrics.update(snapshot_of({"lr": quality_of(0)}))
        seen = poll_once([f"http://127.0.0.1:{metrics.port}/metrics"])
    figures = seen.status
    assert figures.exporters[0].kind == "replay"
    assert {name: figures.pages[name] for name in ("open", "emitted", "empty", "duplicate", "dead_letter")} == {
        "open": 15,
        "emitted": 79,
        "empty": 1,
        "duplicate": 3,
        "dead_letter": 2,
    }
    assert [(task.partition, task.watermark_lag_seconds) for task in figures.tasks] == [(0, 5.0), (1, 7.5)]


def test_an_exporter_that_goes_away_is_shown_so_until_it_is_back() -> None:
    now = [NOW]
    served = TextServer(join_task_metrics(0))
    watching = Poller([served.url], UNREACHABLE_URL, explicit=True, clock=lambda: now[0])
    assert watching.poll().status.exporters[0].up
    served.close()
    now[0] += 12
    seen = watching.poll()
    state = seen.status.exporters[0]
    assert (state.kind, state.up, state.down_seconds) == ("stream", False, 12)
    assert seen.status.tasks == []
    assert f"stream 127.0.0.1:{served.port} down for 12.0 s: Connection refused" in " ".join(text_of(seen).split())
    now[0] += 5
    with TextServer(join_task_metrics(0), port=served.port):
        state = watching.poll().status.exporters[0]
    assert (state.kind, state.up, state.down_seconds) == ("stream", True, None)


def test_only_default_endpoints_that_answered_are_shown() -> None:
    with TextServer("jvm_threads 5\n") as other, TextServer(join_task_metrics(0)) as ours:
        watching = Poller([UNREACHABLE_URL, other.url, ours.url], UNREACHABLE_URL, explicit=False)
        assert [each.url for each in watching.poll().status.exporters] == [ours.url, UNREACHABLE_URL]
    assert [each.up for each in watching.poll().status.exporters] == [False, False]


def test_a_rate_is_the_increase_over_the_elapsed_time() -> None:
    now = [NOW]
    with TextServer(join_task_metrics(0, pages=100)) as served:
        watching = Poller([served.url], UNREACHABLE_URL, explicit=True, clock=lambda: now[0])
        assert watching.poll().rates == {}
        now[0], served.text = NOW + 4, join_task_metrics(0, pages=130)
        seen = watching.poll()
        assert {name: rate for name, rate in seen.rates.items() if rate} == {"in": 7.5, "emitted": 7.5}
        assert "in 130 (+7.5/s)" in table_row(text_of(seen), "pages")
        # A restarted process counts from 0: no rate is shown.
        now[0], served.text = NOW + 8, join_task_metrics(0, pages=50)
        assert "in" not in watching.poll().rates


def test_without_a_monitor_sparklines_show_what_was_polled() -> None:
    labels = 'model="lr",segment="all",window="run"'
    with TextServer("") as served:
        watching = Poller([served.url], UNREACHABLE_URL, explicit=True)
        for auc in (0.5, 0.6, 0.6, 0.7):
            served.text = f"prectr_auc{{{labels}}} {auc}\nprectr_gauc{{{labels}}} NaN\nprectr_held_sketches 1\n"
            seen = watching.poll()
    assert [pair.auc for pair in seen.trends["lr", "all"]] == [0.5, 0.6, 0.7]
    assert [pair.gauc for pair in seen.trends["lr", "all"]] == [None, None, None]
    assert "▁▅█" in table_row(text_of(seen), "all", "pages")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([0.0, 1.0], "▁█"),
        ([1.0, None, 0.0], "█ ▁"),
        ([0.5], "▄"),
        ([0.5, 0.5], "▄▄"),
        ([None], ""),
        ([], ""),
        ([9.0, *[i / 7 for i in range(8)]], "▁▂▃▄▅▆▇█"),
    ],
)
def test_a_sparkline_spans_minimum_to_maximum(values: list[float | None], line: str) -> None:
    assert sparkline(values, 8) == line


def test_with_little_room_the_most_lagging_tasks_are_shown() -> None:
    text = "".join(
        join_task_metrics(number, watermark=1_000_000.0 - (90 if number == 37 else 0)) for number in range(64)
    )
    with TextServer(text) as served:
        seen = poll_once([served.url])
    shown = text_of(seen, height=30)
    assert len(shown.splitlines()) <= 30
    assert "1 min 30 s" in table_row(shown, "join", "37")
    assert re.search(r"and \d+ more with less lag", shown)
    whole = text_of(seen, height=30, whole=True)
    assert all(table_row(whole, "join", str(number)) for number in range(64))


@contextmanager
def unresponsive_port() -> Iterator[str]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/metrics"


@contextmanager
def blurting(content: bytes) -> Iterator[str]:
    """A port that answers with these bytes, whatever is asked."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def answer() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(content)

        Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/metrics"
        listening.shutdown(socket.SHUT_RDWR)


def test_a_corrupt_response_is_described_and_hides_nothing_else() -> None:
    with ExitStack() as stack:
        good = stack.enter_context(TextServer(join_task_metrics(0)))
        bad = {
            stack.enter_context(TextServer("<html>\n")).url: "not in the Prometheus format",
            stack.enter_context(TextServer(b"prectr_auc\xff 1\n")).url: "not in the Prometheus format",
            stack.enter_context(TextServer(join_task_metrics(0)[:-30])).url: "not in the Prometheus format",
            stack.enter_context(TextServer("", 503)).url: "HTTP 503 Service Unavailable",
            stack.enter_context(TextServer("jvm_threads 5\n")).url: "metrics of another program",
            stack.enter_context(TextServer("")).url: "no metrics yet",
            stack.enter_context(unresponsive_port()): "no response in 0.3 s",
            stack.enter_context(blurting(b"SSH-2.0-OpenSSH_9.2\r\n")): "not HTTP: SSH-2.0",
            "http://127.0.0.1:1/metrics": "Connection refused",
        }
        seen = Poller([good.url, *bad], UNREACHABLE_URL, explicit=True, timeout=0.3).poll()
    states = {each.url: each for each in seen.status.exporters}
    for url, words in bad.items():
        assert words in states[url].error
    assert states[good.url].up
    assert seen.status.pages["in"] == 100
    text = text_of(seen, width=160)
    for url, words in bad.items():
        assert any(words in line and url.split("/")[2] in line for line in text.splitlines())


@pytest.mark.parametrize("content", [b"{}", b"[", b"\xff", b'{"now": "x"}', b"<html>"])
def test_a_corrupt_monitor_response_is_described(content: bytes) -> None:
    with TextServer(content) as served:
        answer = scrape_monitor(served.url, 5)
    assert answer.quality is None
    assert "not the quality.json of a monitor" in answer.error


@given(content=st.one_of(st.text(max_size=60), st.from_regex(r'[a-z{}="#, 0-9\n]{0,60}', fullmatch=True)))
def test_any_response_is_parsed_or_rejected(content: str) -> None:
    served = SHARED[0]
    served.text = content
    answer = scrape_exporter(served.url, 5)
    assert (answer.samples is None) <= bool(answer.error)
    assert "\n" not in answer.error


SHARED: list[TextServer] = []


@pytest.fixture(autouse=True, scope="module")
def _shared() -> Iterator[None]:
    with TextServer("") as served:
        SHARED.append(served)
        yield
        SHARED.clear()


def trainer_metrics(*models: str, lag: int) -> str:
    """What a trainer of these models says, which reads two partitions."""
    pages = "".join(f'prectr_trained_pages_total{{model="{model}"}} 100\n' for model in models)
    lags = (f'prectr_consumer_lag_records{{stage="train",partition="{number}"}} {lag + number}\n' for number in (0, 1))
    return pages + "".join(lags)


def test_two_trainers_on_one_topic_have_a_lag_of_their_own() -> None:
    with (
        TextServer(join_task_metrics(0)) as stream,
        TextServer(trainer_metrics("lr", lag=5)) as quick,
        TextServer(trainer_metrics("prectr-v2", "dnn", lag=7000)) as slow,
    ):
        seen = poll_once([stream.url, quick.url, slow.url])
    status = seen.status
    # The stages' lag alone: trainers read the same examples, so that theirs is no sum.
    assert status.lag == 10
    assert status.lag_by_trainer == {"dnn, prectr-v2": 14_001, "lr": 11}
    assert [(task.stage, task.models, task.partition, task.lag, task.owners) for task in status.tasks] == [
        ("join", "", 0, 10, 1),
        ("train", "dnn, prectr-v2", 0, 7000, 1),
        ("train", "dnn, prectr-v2", 1, 7001, 1),
        ("train", "lr", 0, 5, 1),
        ("train", "lr", 1, 6, 1),
    ]
    text = text_of(seen)
    assert "lag 10  lag of dnn, prectr-v2 14,001  lag of lr 11  slowest task behind" in text
    assert table_row(text, "train", "lr", "1").startswith("train lr 1 – 6 ")


def test_tasks_are_in_the_order_of_the_data(tmp_path: Path) -> None:
    text = "".join(
        f'prectr_consumer_lag_records{{stage="{stage}",partition="{partition}"}} 5\n'
        for stage in ("train", "aggregate", "join", "other")
        for partition in (10, 2)
    )
    with TextServer(text) as served:
        tasks: list[TaskState] = poll_once([served.url]).status.tasks
    assert [(task.stage, task.partition) for task in tasks] == [
        (stage, partition) for stage in ("join", "aggregate", "train", "other") for partition in (2, 10)
    ]
