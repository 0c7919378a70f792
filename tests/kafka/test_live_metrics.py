"""The live system watched with Prometheus: what its processes serve is what they do, and only of what they have."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kafka.live import Live, replay
from tests.kafka.worlds import simulated
from tests.kit.scrape import Samples, by_task, scraped

pytestmark = pytest.mark.usefixtures("broker")
_SECONDS = 150
_PORT = ("--metrics-port", "0")
_EMITTED = "prectr_emitted_records_total"


def test_tasks_and_learning_are_shown_where_they_are(live: Live, tmp_path: Path) -> None:
    world = simulated(tmp_path, pages=300)
    pages = len(replay(tmp_path, world).examples)
    live.create()
    live.load(world)
    live.stream(1, "--flush")
    flags = (*_PORT, "--snapshots", str(tmp_path / "snapshots"))
    first, trainer = live.start_stream("1", *flags), live.start_train("--cut-every", "0", *_PORT)
    every = {(stage, number) for stage in ("sessions", "queries") for number in range(live.partitions)}

    # What was put out by the process before counts: the figure is the task's, not the process's.
    _wait(lambda: by_task(_samples(live, first), "prectr_task_position").keys() == every)
    samples = _samples(live, first)
    emitted = by_task(samples, _EMITTED)
    assert sum(count for (stage, _), count in emitted.items() if stage == "queries") == pages
    assert by_task(samples, "prectr_snapshot_failures_total") == dict.fromkeys(every, 0)
    assert by_task(samples, "prectr_replayed_records_behind") == dict.fromkeys(every, 0)

    # A second process takes some of the tasks: they go from the first one's figures to its own, and nothing is lost.
    second = live.start_stream("2", *flags)
    _wait(lambda: _share(live, first, second, emitted))

    line = re.compile(rf"\b{pages} pages, lr AUC .*, waiting: the stages have committed nothing more")
    _wait(lambda: line.search(live.said(trainer)) is not None)
    learned = _samples(live, trainer)
    report = json.loads((live.folder / "train" / "report.json").read_bytes())
    whole = frozenset({("model", "lr"), ("segment", "all")})
    assert learned["prectr_auc", whole | {("window", "run")}] == report["auc"]
    assert learned["prectr_gauc", whole | {("window", "run")}] == report["gauc"]
    # Those of the open batch have come and are not learned from yet.
    assert pages - 16 < report["pages"] <= pages
    assert learned["prectr_scored_pages_total", whole] == report["pages"]
    assert learned["prectr_trained_pages_total", frozenset({("model", "lr")})] == report["pages"]
    assert learned["prectr_out_of_order_total", frozenset()] == 0
    assert learned["prectr_checkpoint_age_seconds", frozenset()] >= 0
    for process in (first, second, trainer):
        process.send_signal(signal.SIGTERM)
        live.ended(process)


def _samples(live: Live, process: subprocess.Popen[str]) -> Samples:
    """What a process serves; nothing before it does."""
    said = live.said(process)
    assert process.poll() is None, said
    found = re.search(r"metrics: http://127\.0\.0\.1:(\d+)/metrics", said)
    return scraped(int(found[1])) if found else {}


def _share(
    live: Live, first: subprocess.Popen[str], second: subprocess.Popen[str], emitted: dict[tuple[str, int], float]
) -> bool:
    """Whether both processes have tasks, none is at both, and together they show all that was put out."""
    one, other = (by_task(_samples(live, each), _EMITTED) for each in (first, second))
    return bool(one) and bool(other) and not one.keys() & other.keys() and one | other == emitted


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while not until():
        assert time.monotonic() < end
        time.sleep(0.1)
