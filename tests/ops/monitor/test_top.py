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
from prectr.ops.metrics.replay import start_metrics
from prectr.ops.metrics.train import train_metrics
from prectr.ops.monitor.current_quality import Reading
from prectr.ops.monitor.metrics import monitor_metrics
from prectr.ops.monitor.server import PageServer
from prectr.ops.top.poller import Round, Watching
from prectr.ops.top.scrape import ask_exporter, ask_monitor, monitor_page
from prectr.ops.top.screen import drawn, spark
from prectr.ops.top.stats import TaskState
from tests.kit.observe.top import AWAY, Served, row, sessions
from tests.ops.metrics.test_live import trained
from tests.ops.metrics.test_replay import quality_of, snapshot_of
from tests.ops.monitor.test_page import NOW, reading


def text_of(seen: Round, width: int = 130, height: int = 60, *, whole: bool = False) -> str:
    out = StringIO()
    console = Console(file=out, width=width, height=height, color_system=None, highlight=False)
    console.print(drawn(seen, console, whole=whole))
    return out.getvalue()


def looked(urls: Sequence[str], monitor: str = AWAY, *, named: bool = True) -> Round:
    return Watching(urls, monitor, named=named).round()


def test_counts_of_all_tasks_are_summed_and_what_is_told_twice_is_taken_once() -> None:
    with Served(sessions(0) + sessions(1)) as one, Served(sessions(1, position=5, pages=90) + sessions(2)) as two:
        figures = looked([one.url, two.url]).figures
    assert figures.pages == {"in": 300, "open": 54, "emitted": 240, "dead_letter": 6}
    assert figures.clicks == {"in": 150, "waiting": 21, "joined": 120, "late": 9}
    assert (figures.unreadable, figures.dead_letters) == (3, {"json": 3})
    assert figures.unread == 10 + 20 + 30
    assert [(task.stage, task.partition, task.position, task.owners) for task in figures.tasks] == [
        ("sessions", 0, 130, 1),
        ("sessions", 1, 130, 2),
        ("sessions", 2, 130, 1),
    ]


def test_a_task_is_as_far_behind_as_its_watermark_is_behind_the_furthest() -> None:
    with Served(sessions(0) + sessions(1, watermark=999_910.0)) as one, Served(sessions(2, watermark=4.6e15)) as two:
        seen = looked([one.url, two.url])
    # A log that has ended for good is behind nothing.
    assert [task.behind_seconds for task in seen.figures.tasks] == [0.0, 90.0, None]
    assert seen.figures.lag_seconds == 90.0
    text = text_of(seen)
    assert row(text, "sessions", "1") == "sessions 1 130 20 1 min 30 s 80 0 12.5 s ago"
    assert row(text, "lag") == "lag unread 60 slowest task behind 1 min 30 s checkpoint –"


def test_a_trainers_figures_are_those_of_its_exporter(tmp_path: Path) -> None:
    with Exporter(partial(train_metrics, clock=lambda: NOW), 0) as exporter:
        exporter.update(trained(tmp_path, NOW - 20))
        seen = looked([f"http://127.0.0.1:{exporter.port}/metrics"])
    assert [(each.kind, each.answers) for each in seen.figures.exporters] == [
        ("train", True),
        ("monitor's page", False),
    ]
    (model,) = seen.figures.models
    expected = quality_of(0).segments()
    assert (model.model, model.trained_pages, seen.figures.checkpoint_age_seconds) == ("lr", 64, 20)
    assert seen.figures.out_of_order == 5
    for segment in ("all", "new", "low"):
        pair = model.quality[segment]["run"]
        assert (pair.auc, pair.gauc) == (expected[segment].auc, expected[segment].gauc)
    # Nobody is active: there is nothing to say, and a dash says it.
    assert model.quality["active"] == {}
    text = text_of(seen)
    assert f"{expected['new'].auc:.4f}" in row(text, "new", "users")
    assert row(text, "active", "users") == "active users – –"
    assert "learned 64" in text
    assert "checkpoint 20.0 s ago" in text


def test_the_monitors_windows_and_its_last_day_are_shown() -> None:
    given_reading = reading()
    with PageServer(0, "127.0.0.1", clock=lambda: NOW) as server:
        server.update(given_reading)
        url = f"http://127.0.0.1:{server.port}"
        seen = looked([], monitor_page(url))
        quality = server.now()
    by_name = {model.model: model for model in seen.figures.models}
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
        server.update(Reading(standing="reading", received=0, refused={}, stretches=0, sources=[], quality={}))
        seen = looked([], monitor_page(f"http://127.0.0.1:{server.port}"))
    assert [each.answers for each in seen.figures.exporters] == [True]
    text = text_of(seen)
    assert "No model yet" in text
    assert "Nothing answers" not in text


def test_a_monitor_that_waits_says_what_for() -> None:
    with PageServer(0, "127.0.0.1", clock=lambda: NOW) as server:
        server.update(reading("waiting for Kafka"))
        seen = looked([], monitor_page(f"http://127.0.0.1:{server.port}"))
    assert seen.figures.exporters[0].answers
    assert f"○ monitor's page 127.0.0.1:{server.port} waiting for Kafka" in " ".join(text_of(seen).split())


def test_with_nobody_there_the_screen_says_what_to_do() -> None:
    text = " ".join(text_of(looked(["http://127.0.0.1:1/metrics"])).split())
    assert "0 of 2 answer" in text
    assert "Nothing answers. Start the system with `prectr run" in text


def test_the_monitors_exporter_does_where_its_page_is_away() -> None:
    with Exporter(partial(monitor_metrics, clock=lambda: NOW), 0) as exporter:
        exporter.update(reading())
        seen = looked([f"http://127.0.0.1:{exporter.port}/metrics"])
    (other, lr) = seen.figures.models
    assert (other.model, lr.model) == ("dnn & co", "lr")
    assert lr.quality["all"].keys() == {"5m", "1h", "24h", "run"}
    assert seen.figures.exporters[0].kind == "monitor"
    assert seen.span["lr"] == "meanwhile"


def test_a_replay_can_be_watched() -> None:
    with start_metrics(0) as metrics:
        metrics.update(snapshot_of({"lr": quality_of(0)}))
        seen = looked([f"http://127.0.0.1:{metrics.port}/metrics"])
    figures = seen.figures
    assert figures.exporters[0].kind == "replay"
    assert {name: figures.pages[name] for name in ("open", "emitted", "duplicate", "dead_letter")} == {
        "open": 15,
        "emitted": 80,
        "duplicate": 3,
        "dead_letter": 2,
    }
    assert [(task.partition, task.behind_seconds) for task in figures.tasks] == [(0, 5.0), (1, 7.5)]


def test_an_exporter_that_goes_away_is_shown_so_until_it_is_back() -> None:
    now = [NOW]
    served = Served(sessions(0))
    watching = Watching([served.url], AWAY, named=True, clock=lambda: now[0])
    assert watching.round().figures.exporters[0].answers
    served.close()
    now[0] += 12
    seen = watching.round()
    state = seen.figures.exporters[0]
    assert (state.kind, state.answers, state.away_seconds) == ("stream", False, 12)
    assert seen.figures.tasks == []
    assert f"stream 127.0.0.1:{served.port} away for 12.0 s: Connection refused" in " ".join(text_of(seen).split())
    now[0] += 5
    with Served(sessions(0), port=served.port):
        state = watching.round().figures.exporters[0]
    assert (state.kind, state.answers, state.away_seconds) == ("stream", True, None)


def test_of_the_usual_places_those_are_shown_that_have_answered() -> None:
    with Served("jvm_threads 5\n") as other, Served(sessions(0)) as ours:
        watching = Watching([AWAY, other.url, ours.url], AWAY, named=False)
        assert [each.url for each in watching.round().figures.exporters] == [ours.url, AWAY]
    assert [each.answers for each in watching.round().figures.exporters] == [False, False]


def test_what_is_said_to_be_a_second_is_the_growth_over_the_time_between() -> None:
    now = [NOW]
    with Served(sessions(0, pages=100)) as served:
        watching = Watching([served.url], AWAY, named=True, clock=lambda: now[0])
        assert watching.round().a_second == {}
        now[0], served.text = NOW + 4, sessions(0, pages=130)
        seen = watching.round()
        assert seen.a_second == {"in": 7.5, "emitted": 7.5, "clicks": 0}
        assert "in 130 (+7.5/s)" in row(text_of(seen), "pages")
        # A process that begins anew counts from the beginning: nothing is said of it.
        now[0], served.text = NOW + 8, sessions(0, pages=50)
        assert "in" not in watching.round().a_second


def test_without_a_monitor_the_lines_are_what_was_seen_meanwhile() -> None:
    labels = 'model="lr",segment="all",window="run"'
    with Served("") as served:
        watching = Watching([served.url], AWAY, named=True)
        for auc in (0.5, 0.6, 0.6, 0.7):
            served.text = f"prectr_auc{{{labels}}} {auc}\nprectr_gauc{{{labels}}} NaN\nprectr_held_sketches 1\n"
            seen = watching.round()
    assert [pair.auc for pair in seen.lines["lr", "all"]] == [0.5, 0.6, 0.7]
    assert [pair.gauc for pair in seen.lines["lr", "all"]] == [None, None, None]
    assert "▁▅█" in row(text_of(seen), "all", "pages")


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
def test_a_line_goes_from_the_least_to_the_greatest(values: list[float | None], line: str) -> None:
    assert spark(values, 8) == line


def test_where_there_is_no_place_for_all_tasks_those_furthest_behind_are_shown() -> None:
    text = "".join(sessions(number, watermark=1_000_000.0 - (90 if number == 37 else 0)) for number in range(64))
    with Served(text) as served:
        seen = looked([served.url])
    shown = text_of(seen, height=30)
    assert len(shown.splitlines()) <= 30
    assert "1 min 30 s" in row(shown, "sessions", "37")
    assert re.search(r"and \d+ more that are less behind", shown)
    whole = text_of(seen, height=30, whole=True)
    assert all(row(whole, "sessions", str(number)) for number in range(64))


@contextmanager
def silent() -> Iterator[str]:
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


def test_damage_is_said_in_words_and_hides_nothing_else() -> None:
    with ExitStack() as stack:
        good = stack.enter_context(Served(sessions(0)))
        bad = {
            stack.enter_context(Served("<html>\n")).url: "not in Prometheus' format",
            stack.enter_context(Served(b"prectr_auc\xff 1\n")).url: "not in Prometheus' format",
            stack.enter_context(Served(sessions(0)[:-30])).url: "not in Prometheus' format",
            stack.enter_context(Served("", 503)).url: "HTTP 503 Service Unavailable",
            stack.enter_context(Served("jvm_threads 5\n")).url: "its metrics are of another program",
            stack.enter_context(Served("")).url: "it has nothing to say yet",
            stack.enter_context(silent()): "no answer in 0.3 s",
            stack.enter_context(blurting(b"SSH-2.0-OpenSSH_9.2\r\n")): "it does not speak HTTP",
            "http://127.0.0.1:1/metrics": "Connection refused",
        }
        seen = Watching([good.url, *bad], AWAY, named=True, seconds=0.3).round()
    states = {each.url: each for each in seen.figures.exporters}
    for url, words in bad.items():
        assert words in states[url].trouble
    assert states[good.url].answers
    assert seen.figures.pages["in"] == 100
    text = text_of(seen, width=160)
    for url, words in bad.items():
        assert any(words in line and url.split("/")[2] in line for line in text.splitlines())


@pytest.mark.parametrize("content", [b"{}", b"[", b"\xff", b'{"now": "x"}', b"<html>"])
def test_a_damaged_answer_of_the_monitor_is_said_in_words(content: bytes) -> None:
    with Served(content) as served:
        answer = ask_monitor(served.url, 5)
    assert answer.now is None
    assert "not a monitor's quality.json" in answer.trouble


@given(content=st.one_of(st.text(max_size=60), st.from_regex(r'[a-z{}="#, 0-9\n]{0,60}', fullmatch=True)))
def test_whatever_is_served_is_read_or_refused(content: str) -> None:
    served = SHARED[0]
    served.text = content
    answer = ask_exporter(served.url, 5)
    assert (answer.samples is None) <= bool(answer.trouble)
    assert "\n" not in answer.trouble


SHARED: list[Served] = []


@pytest.fixture(autouse=True, scope="module")
def _shared() -> Iterator[None]:
    with Served("") as served:
        SHARED.append(served)
        yield
        SHARED.clear()


def test_tasks_are_in_the_order_of_the_data(tmp_path: Path) -> None:
    text = "".join(
        f'prectr_consumer_lag_records{{stage="{stage}",partition="{partition}"}} 5\n'
        for stage in ("train", "queries", "sessions", "other")
        for partition in (10, 2)
    )
    with Served(text) as served:
        tasks: list[TaskState] = looked([served.url]).figures.tasks
    assert [(task.stage, task.partition) for task in tasks] == [
        (stage, partition) for stage in ("sessions", "queries", "train", "other") for partition in (2, 10)
    ]
