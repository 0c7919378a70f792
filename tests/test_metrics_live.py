"""The exporters of `prectr stream` and `prectr train`, scraped over HTTP and read by Prometheus' own parser."""

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from model.quality import Quality
from ops.exporter import Exporter
from ops.metrics import replay_metrics
from ops.metrics_options import exporter_if_wanted
from ops.stream_metrics import stream_metrics
from ops.train_metrics import TrainSnapshot, train_metrics, train_snapshot
from state.errors import UsageError
from state.snapshotter import SnapshotProgress
from stream.kafka.task import TaskFacts
from tests.kit.scrape import ALLOWED_LABELS, Samples, by_task, exposition, scraped
from tests.oracle.command import prectr
from tests.test_metrics import quality_of, snapshot_of

NOW = 1_700_000_100.0
SESSIONS = TaskFacts(
    stage="sessions",
    partition=0,
    position=120,
    behind=7,
    emitted=45,
    watermark=1_700_000_000_500,
    snapshots=SnapshotProgress(offset=100, created=NOW - 12.5, seconds=0.25, uploaded=4096, failures=2, damaged=1),
)
QUERIES = TaskFacts(
    stage="queries",
    partition=3,
    position=30,
    behind=0,
    emitted=20,
    watermark=None,
    snapshots=SnapshotProgress(),
)
GAUGES_AND_COUNTERS = {
    "prectr_task_position": {("sessions", 0): 120, ("queries", 3): 30},
    "prectr_replayed_records_behind": {("sessions", 0): 7, ("queries", 3): 0},
    "prectr_emitted_records_total": {("sessions", 0): 45, ("queries", 3): 20},
    "prectr_watermark_timestamp_seconds": {("sessions", 0): 1_700_000_000.5},
    "prectr_snapshot_age_seconds": {("sessions", 0): 12.5},
    "prectr_snapshot_seconds": {("sessions", 0): 0.25},
    "prectr_snapshot_uploaded_bytes": {("sessions", 0): 4096},
    "prectr_snapshot_failures_total": {("sessions", 0): 2, ("queries", 3): 0},
    "prectr_snapshots_damaged_total": {("sessions", 0): 1, ("queries", 3): 0},
}


def streaming(now: float = NOW) -> Callable[..., Iterator[Metric]]:
    return partial(stream_metrics, clock=lambda: now)


def seen(tasks: list[TaskFacts], now: float = NOW) -> Samples:
    with Exporter(streaming(now), 0) as exporter:
        exporter.update(tasks)
        return scraped(exporter.port)


def test_each_task_is_shown_by_stage_and_partition_and_what_it_does_not_know_is_left_out() -> None:
    samples = seen([SESSIONS, QUERIES])
    assert {name for name, _ in samples} == set(GAUGES_AND_COUNTERS)
    for name, expected in GAUGES_AND_COUNTERS.items():
        assert by_task(samples, name) == expected


def test_a_stage_without_snapshots_has_no_figures_of_them() -> None:
    task = TaskFacts(stage="queries", partition=0, position=1, behind=0, emitted=1, watermark=0, snapshots=None)
    samples = seen([task])
    assert len(samples) == 4
    assert not [name for name, _ in samples if "snapshot" in name]


def test_a_partition_that_has_gone_takes_its_gauges_and_counters_with_it() -> None:
    with Exporter(streaming(), 0) as exporter:
        exporter.update([SESSIONS, QUERIES])
        assert any(("partition", "0") in labels for _, labels in scraped(exporter.port))
        exporter.update([QUERIES])
        assert {dict(labels)["partition"] for _, labels in scraped(exporter.port)} == {"3"}
        exporter.update([])
        assert scraped(exporter.port) == {}


def test_an_age_goes_on_between_two_updates_and_is_never_negative() -> None:
    times = iter([NOW, NOW + 30, NOW - 3600])
    with Exporter(partial(stream_metrics, clock=lambda: next(times)), 0) as exporter:
        exporter.update([SESSIONS])
        ages = [by_task(scraped(exporter.port), "prectr_snapshot_age_seconds")["sessions", 0] for _ in range(3)]
    assert ages == [12.5, 42.5, 0]


class Learned:
    """A sink of which only the figures are asked."""

    def __init__(self, quality: Quality) -> None:
        self.quality = quality
        self.pages_trained = 64


def trained(tmp_path: Path, checkpoint: float | None) -> TrainSnapshot:
    for number, at in enumerate((1_000_000.0, checkpoint) if checkpoint is not None else (), 1):
        cut = tmp_path / "checkpoints" / f"{number:08d}"
        cut.mkdir(parents=True)
        os.utime(cut, (at, at))
    return train_snapshot({"lr": Learned(quality_of(0))}, 5, tmp_path)


def test_a_trainer_shows_pages_quality_and_the_age_of_its_newest_checkpoint(tmp_path: Path) -> None:
    with Exporter(partial(train_metrics, clock=lambda: NOW), 0) as exporter:
        exporter.update(trained(tmp_path, NOW - 20))
        samples = scraped(exporter.port)
    assert samples["prectr_trained_pages_total", frozenset({("model", "lr")})] == 64
    assert samples["prectr_out_of_order_total", frozenset()] == 5
    assert samples["prectr_checkpoint_age_seconds", frozenset()] == 20


def test_a_trainer_without_a_checkpoint_has_no_age_of_one(tmp_path: Path) -> None:
    assert "prectr_checkpoint_age_seconds" not in {metric.name for metric in train_metrics(trained(tmp_path, None))}


def test_a_trainers_quality_has_the_names_and_figures_of_a_replays(tmp_path: Path) -> None:
    def quality(metrics: Iterator[Metric]) -> dict[str, Metric]:
        return {metric.name: metric for metric in metrics if "model" in str(metric.samples)}

    live = quality(train_metrics(trained(tmp_path, None)))
    assert live.keys() >= {"prectr_trained_pages", "prectr_auc", "prectr_gauc", "prectr_calibration_ratio"}
    assert live == quality(replay_metrics(snapshot_of({"lr": quality_of(0)})))


def every(tmp_path: Path) -> dict[str, tuple[Callable[..., Iterator[Metric]], object]]:
    return {
        "stream": (streaming(), [SESSIONS, QUERIES]),
        "train": (train_metrics, trained(tmp_path, NOW)),
        "replay": (replay_metrics, snapshot_of({"lr": quality_of(0)})),
    }


@pytest.mark.parametrize("which", ["stream", "train", "replay"])
def test_every_exporter_keeps_the_conventions(which: str, tmp_path: Path) -> None:
    render, snapshot = every(tmp_path)[which]
    with Exporter(render, 0) as exporter:
        exporter.update(snapshot)
        samples, text = scraped(exporter.port), exposition(exporter.port)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (\S.*)$", text, re.MULTILINE))
    assert samples.keys()
    for name, labels in samples:
        assert re.fullmatch(r"prectr_[a-z_]+", name)
        assert {label for label, _ in labels} <= ALLOWED_LABELS
        assert kinds[name] == ("counter" if name.endswith("_total") else "gauge")
        assert helps[name].endswith(".")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: it is in Debian's package prometheus")
@pytest.mark.parametrize("which", ["stream", "train", "replay"])
def test_promtool_finds_nothing_to_say(which: str, tmp_path: Path) -> None:
    render, snapshot = every(tmp_path)[which]
    with Exporter(render, 0) as exporter:
        exporter.update(snapshot)
        text = exposition(exporter.port)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_exporter_says_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ops"), exporter_if_wanted(stream_metrics, 0, None) as exporter:
        assert exporter is not None
        assert f"metrics: http://127.0.0.1:{exporter.port}/metrics" in caplog.messages


def test_without_a_port_nothing_is_served_and_an_address_alone_is_wrong_use() -> None:
    with exporter_if_wanted(stream_metrics, None, None) as exporter:
        assert exporter is None
    with pytest.raises(UsageError, match=r"--metrics-address 0\.0\.0\.0 goes with --metrics-port"):
        exporter_if_wanted(stream_metrics, None, "0.0.0.0")


def test_the_command_refuses_an_address_without_a_port(tmp_path: Path) -> None:
    flags = ["--bootstrap", "127.0.0.1:1", "--state-dir", tmp_path / "state", "--metrics-address", "0.0.0.0"]
    done = prectr("stream", *flags)
    assert done.returncode == 2
    assert "goes with --metrics-port" in done.stderr
    assert "Traceback" not in done.stderr
