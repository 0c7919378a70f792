"""The live system's metrics: each process exports what it does, for its own tasks only."""

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testkit.command import RunningCommand, read_written_examples
from tests.kafka.live import Live, replay_log
from tests.kafka.monitoring import MonitorProcess
from tests.kafka.worlds import adversarial, simulated
from tests.kit.observe.promtool import assert_lint_clean
from tests.kit.observe.scrape import Samples, exposition, scrape_samples, values_by_task

pytestmark = pytest.mark.usefixtures("broker")
_SECONDS = 150
_PORT = ("--metrics-port", "0")
_EMITTED = "prectr_emitted_records_total"


def test_tasks_and_learning_are_shown_where_they_are(live: Live, tmp_path: Path) -> None:
    world = simulated(tmp_path, pages=300)
    pages = len(replay_log(tmp_path, world).examples)
    live.create()
    live.load(world)
    live.stream(1, "--flush")
    flags = (*_PORT, "--snapshots", str(tmp_path / "snapshots"))
    first, trainer = live.start_stream("1", *flags), live.start_train("--checkpoint-interval", "0", *_PORT)
    every = {(stage, number) for stage in ("join", "aggregate") for number in range(live.partitions)}

    # What was put out by the process before counts: the figure is the task's, not the process's.
    _wait(lambda: values_by_task(_samples(live, first), "prectr_task_offset").keys() == every)
    samples = _samples(live, first)
    emitted = values_by_task(samples, _EMITTED)
    assert sum(count for (stage, _), count in emitted.items() if stage == "aggregate") == pages
    assert values_by_task(samples, "prectr_snapshot_failures_total") == dict.fromkeys(every, 0)
    assert values_by_task(samples, "prectr_restore_remaining_records") == dict.fromkeys(every, 0)

    # A second process takes some of the tasks: they go from the first one's figures to its own, and nothing is lost.
    second = live.start_stream("2", *flags)
    _wait(lambda: _share(live, first, second, emitted))

    line = re.compile(rf"\b{pages} pages, lr AUC .*, waiting: the stages have committed nothing new")
    _wait(lambda: line.search(live.stderr_of(trainer)) is not None)
    learned = _samples(live, trainer)
    report = json.loads((live.folder / "train" / "report.json").read_bytes())
    whole = frozenset({("model", "lr"), ("segment", "all")})
    assert learned["prectr_auc", whole | {("window", "run")}] == report["auc"]
    assert learned["prectr_gauc", whole | {("window", "run")}] == report["gauc"]
    # Those of the open batch have come and are not learned from yet.
    assert pages - 16 < report["pages"] <= pages
    assert learned["prectr_scored_pages_total", whole] == report["pages"]
    assert learned["prectr_trained_pages_total", frozenset({("model", "lr")})] == report["pages"]
    assert learned["prectr_late_records_total", frozenset()] == 0
    assert learned["prectr_checkpoint_age_seconds", frozenset()] >= 0
    for process in (first, second, trainer):
        live.request_stop(process)
        live.wait_for_end(process)


def test_what_is_served_is_what_a_replay_counts_also_by_a_process_that_has_lost_its_state(
    live: Live, tmp_path: Path
) -> None:
    world = adversarial(tmp_path, pages=300)
    events = len(world.read_bytes().splitlines())
    counted = replay_log(tmp_path, world, flush=False).outcomes
    live.create()
    live.load(world)
    snapshots = ("--snapshots", str(tmp_path / "snapshots"), "--snapshot-interval", "0.1")
    stream = live.start_stream("1", *_PORT, *snapshots, PRECTR_LOG_FORMAT="json")
    trainer, monitor = live.start_train("--checkpoint-interval", "0.5", *_PORT), MonitorProcess(live).start()
    tasks = {(stage, number) for stage in ("join", "aggregate") for number in range(live.partitions)}

    _wait(lambda: _sum(_samples(live, stream), "prectr_microbatch_records_total", stage="join") == events)
    _wait(lambda: values_by_task(_samples(live, stream), "prectr_consumer_lag_records") == dict.fromkeys(tasks, 0))
    _wait(lambda: values_by_task(_samples(live, stream), "prectr_snapshot_bytes").keys() == tasks)
    samples = _samples(live, stream)
    _assert_stage_metrics(samples, counted, tasks)
    # A stage that waits for one of its sources has no watermark yet.
    _wait(lambda: values_by_task(_samples(live, stream), "prectr_watermark_lag_seconds").keys() == tasks)
    _assert_aggregated_counts(_samples(live, stream), live)

    _wait(lambda: values_by_task(_samples(live, trainer), "prectr_consumer_lag_records").keys() == _of_train(live))
    _wait(lambda: any(name == "prectr_auc" for name, _ in monitor.samples()))
    learned = _samples(live, trainer)
    assert 0 <= learned["prectr_device_idle_ratio", frozenset()] <= 1
    assert learned["prectr_trained_batches_total", frozenset({("model", "lr")})] > 0
    ports = [_port(live, stream), _port(live, trainer), monitor.port("metrics")]
    for port in ports:
        assert port is not None
        assert_lint_clean(exposition(port))

    lines = [json.loads(line) for line in live.stderr_of(stream).splitlines()]
    opened = [line for line in lines if "open at offset" in line["message"]]
    assert {(line["stage"], line["partition"]) for line in opened} == tasks
    assert not _searched(world) & set(
        re.findall(r"[\w-]+", live.stderr_of(stream) + live.stderr_of(trainer) + monitor.log_text())
    )

    live.kill(stream)
    shutil.rmtree(live.state_dir("1"))
    again = live.start_stream("1", *_PORT)
    _wait(lambda: values_by_task(_samples(live, again), "prectr_restore_seconds").keys() == tasks)
    samples = _samples(live, again)
    assert _sum(samples, "prectr_restored_records_total", stage="join") == events
    _same_outcomes(samples, counted)
    assert all(seconds > 0 for seconds in values_by_task(samples, "prectr_restore_seconds").values())
    for process in (again, trainer, monitor.process):
        assert process is not None
        live.request_stop(process)
    live.wait_for_end(again)
    live.wait_for_end(trainer)
    monitor.wait_for_end()


def _assert_stage_metrics(samples: Samples, counted: dict[str, Any], tasks: set[tuple[str, int]]) -> None:
    """Assert that the outcomes are those of the replay, and that every task reports its work."""
    _same_outcomes(samples, counted)
    refused = [counted["pages"]["dead_letter"], counted["clicks"]["dead_letter"], counted["unreadable"]]
    assert _sum(samples, "prectr_dead_letters_total") == sum(refused) > 0
    assert len(_labelled(samples, "prectr_dead_letters_total", "reason")) > 1
    for name in ("prectr_transaction_seconds_count", "prectr_microbatch_seconds_count", "prectr_store_keys"):
        assert all(count > 0 for count in values_by_task(samples, name).values())
    assert values_by_task(samples, "prectr_restored_records_total") == dict.fromkeys(tasks, 0)
    assert values_by_task(samples, "prectr_restore_seconds").keys() == tasks
    uploaded = values_by_task(samples, "prectr_snapshot_uploaded_bytes")
    assert all(uploaded[task] <= size for task, size in values_by_task(samples, "prectr_snapshot_bytes").items())


def _assert_aggregated_counts(samples: Samples, live: Live) -> None:
    """Assert that impressions and clicks by relevance level are those of the examples."""
    items = [item for page in read_written_examples(live.examples()) for item in page["items"]]
    for name, weigh in (("impressions", lambda item: 1), ("clicks", lambda item: item["click"])):
        expected: Counter[str] = Counter()
        for item in items:
            expected[str(item["relevance"])] += weigh(item)
        assert _labelled(samples, f"prectr_aggregated_{name}_total", "relevance_level") == expected


def _searched(log: Path) -> set[str]:
    """Users and words of queries that a log names, but those that anybody may say."""
    found: set[str] = set()
    for line in log.read_bytes().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found |= {str(event.get("user_id"))}
            found |= set(re.findall(r"[^\W\d]{4,}", str(event.get("query")).lower()))
    # Broken lines make words such as these.
    return found - {"None", "none", "query", "back", "break", "fine", "line"}


def _same_outcomes(samples: Samples, counted: dict[str, Any]) -> None:
    """Check that the metrics of all partitions add up to `counted`."""
    pages, clicks = dict(counted["pages"]), dict(counted["clicks"])
    assert _labelled(samples, "prectr_events_total", "type") == {
        "page": pages.pop("in"),
        "click": clicks.pop("in"),
        "unreadable": counted["unreadable"],
    }
    assert _sum(samples, "prectr_pending_pages") == pages.pop("open")
    assert _sum(samples, "prectr_pending_clicks") == clicks.pop("waiting")
    assert _labelled(samples, "prectr_pages_total", "outcome") == pages
    assert _labelled(samples, "prectr_clicks_total", "outcome") == clicks


def _sum(samples: Samples, name: str, **labels: str) -> float:
    return sum(
        value for (each, found), value in samples.items() if each == name and labels.items() <= dict(found).items()
    )


def _labelled(samples: Samples, name: str, label: str) -> dict[str, float]:
    """A metric's sums by a label."""
    found: Counter[str] = Counter()
    for (each, labels), value in samples.items():
        if each == name:
            found[dict(labels)[label]] += value  # type: ignore[assignment]
    return dict(found)


def _of_train(live: Live) -> set[tuple[str, int]]:
    return {("train", number) for number in range(live.partitions)}


def _port(live: Live, process: RunningCommand) -> int | None:
    found = re.search(r"metrics: http://127\.0\.0\.1:(\d+)/metrics", live.stderr_of(process))
    return int(found[1]) if found else None


def _samples(live: Live, process: RunningCommand) -> Samples:
    """What a process serves; nothing before it does."""
    assert process.poll() is None, live.stderr_of(process)
    port = _port(live, process)
    return {} if port is None else scrape_samples(port)


def _share(live: Live, first: RunningCommand, second: RunningCommand, emitted: dict[tuple[str, int], float]) -> bool:
    """Whether both processes have tasks, none is at both, and together they show all that was put out."""
    one, other = (values_by_task(_samples(live, each), _EMITTED) for each in (first, second))
    return bool(one) and bool(other) and not one.keys() & other.keys() and one | other == emitted


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while not until():
        assert time.monotonic() < end
        time.sleep(0.1)
