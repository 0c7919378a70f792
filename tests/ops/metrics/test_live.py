"""The exporters of `prectr stream` and `prectr train`, scraped over HTTP and read by Prometheus' own parser."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.metrics_core import Metric

from prectr.model.quality.quality import Quality
from prectr.ops.cli.options import MetricsOptions
from prectr.ops.metrics.exporter import Exporter
from prectr.ops.metrics.replay import replay_metrics
from prectr.ops.metrics.stream import stream_metrics
from prectr.ops.metrics.train import TrainSnapshot, train_metrics, train_snapshot
from prectr.state.errors import UsageError
from prectr.state.snapshots.snapshotter import SnapshotProgress
from prectr.state.store import StoreStats
from prectr.stream.join.outcomes import ClickOutcomes, Outcomes, PageOutcomes
from prectr.stream.kafka.tasks.task_metrics import DurationBuckets, DurationHistogram, TaskCounts
from prectr.stream.kafka.tasks.task_status import TaskStatus
from testkit.command import prectr
from tests.kit.observe.promtool import assert_lint_clean
from tests.kit.observe.scrape import ALLOWED_LABELS, Samples, exposition, scrape_samples, values_by_task
from tests.ops.metrics.test_replay import quality_of, snapshot_of

NOW = 1_700_000_100.0


def durations(*seconds: float) -> DurationBuckets:
    watch = DurationHistogram()
    for each in seconds:
        watch.observe(each)
    return watch.buckets()


JOIN_STATUS = TaskStatus(
    stage="join",
    partition=0,
    next_offset=120,
    restore_remaining=7,
    emitted=45,
    watermark=1_700_000_000_500,
    snapshots=SnapshotProgress(
        offset=100,
        created_at=NOW - 12.5,
        seconds=0.25,
        uploaded_bytes=4096,
        failures=2,
        corrupt_count=1,
        total_bytes=9000,
    ),
    lag=33,
    restored_records=11,
    restore_seconds=1.5,
    processed_records=120,
    batch_durations=durations(0.004, 0.2, 99.0),
    commit_durations=durations(0.025),
    counts=TaskCounts(
        outcomes=Outcomes(PageOutcomes(100, 79, 15, 1, 3, 2), ClickOutcomes(50, 28, 5, 4, 3, 2, 5, 2, 1), 7),
        dead_letters={"json": 7, "future_timestamp": 3},
        future_events=4,
        future_event_lead=28_800_000,
        misplaced_events=9,
        last_event_at=1_700_000_000_250,
        longest_usual_silence=90_000,
        max_watermark=1_700_000_000_500,
    ),
    store_stats=StoreStats(keys=70, size=5000, memory=800, cache_hits=60, cache_misses=40, stall_seconds=0.125),
)
AGGREGATE_STATUS = TaskStatus(
    stage="aggregate",
    partition=3,
    next_offset=30,
    restore_remaining=0,
    emitted=20,
    watermark=None,
    snapshots=SnapshotProgress(),
    counts=TaskCounts(level_counts=(10, 20, 30, 40, 1, 2, 3, 8), max_watermark=1_700_000_020_500),
)
GAUGES_AND_COUNTERS = {
    "prectr_task_offset": {("join", 0): 120, ("aggregate", 3): 30},
    "prectr_restore_remaining_records": {("join", 0): 7, ("aggregate", 3): 0},
    "prectr_emitted_records_total": {("join", 0): 45, ("aggregate", 3): 20},
    "prectr_consumer_lag_records": {("join", 0): 33},
    "prectr_restored_records_total": {("join", 0): 11, ("aggregate", 3): 0},
    "prectr_restore_seconds": {("join", 0): 1.5},
    "prectr_microbatch_records_total": {("join", 0): 120, ("aggregate", 3): 0},
    "prectr_microbatch_seconds_count": {("join", 0): 3, ("aggregate", 3): 0},
    "prectr_microbatch_seconds_sum": {("join", 0): 99.204, ("aggregate", 3): 0},
    "prectr_transaction_seconds_count": {("join", 0): 1, ("aggregate", 3): 0},
    "prectr_transaction_seconds_sum": {("join", 0): 0.025, ("aggregate", 3): 0},
    "prectr_store_keys": {("join", 0): 70},
    "prectr_store_bytes": {("join", 0): 5000},
    "prectr_store_memory_bytes": {("join", 0): 800},
    "prectr_store_block_cache_hits_total": {("join", 0): 60},
    "prectr_store_block_cache_misses_total": {("join", 0): 40},
    "prectr_store_write_stall_seconds_total": {("join", 0): 0.125},
    "prectr_pending_pages": {("join", 0): 15},
    "prectr_pending_clicks": {("join", 0): 5},
    "prectr_future_events": {("join", 0): 4},
    "prectr_future_event_lead_seconds": {("join", 0): 28_800},
    "prectr_last_event_timestamp_seconds": {("join", 0): 1_700_000_000.25},
    "prectr_longest_usual_silence_seconds": {("join", 0): 90},
    "prectr_misplaced_events_total": {("join", 0): 9},
    "prectr_watermark_timestamp_seconds": {("join", 0): 1_700_000_000.5},
    # The other task knows a watermark that is 20 s ahead.
    "prectr_watermark_lag_seconds": {("join", 0): 20},
    "prectr_snapshot_bytes": {("join", 0): 9000},
    "prectr_snapshot_age_seconds": {("join", 0): 12.5},
    "prectr_snapshot_seconds": {("join", 0): 0.25},
    "prectr_snapshot_uploaded_bytes": {("join", 0): 4096},
    "prectr_snapshot_failures_total": {("join", 0): 2, ("aggregate", 3): 0},
    "prectr_snapshots_corrupt_total": {("join", 0): 1, ("aggregate", 3): 0},
}
COUNTED = {
    "prectr_events_total": ("join", "0", "type", {"page": 100, "click": 50, "unreadable": 7}),
    "prectr_pages_total": ("join", "0", "outcome", {"emitted": 79, "empty": 1, "duplicate": 3, "dead_letter": 2}),
    "prectr_clicks_total": (
        "join",
        "0",
        "outcome",
        {
            "joined": 28,
            "duplicate": 5,
            "late": 4,
            "orphan": 3,
            "foreign": 2,
            "other_action": 2,
            "dead_letter": 1,
        },
    ),
    "prectr_dead_letters_total": ("join", "0", "reason", {"json": 7, "future_timestamp": 3}),
    "prectr_aggregated_impressions_total": ("aggregate", "3", "relevance_level", {"1": 10, "2": 20, "3": 30, "4": 40}),
    "prectr_aggregated_clicks_total": ("aggregate", "3", "relevance_level", {"1": 1, "2": 2, "3": 3, "4": 8}),
}
"""By stage and partition, and by one label more."""


def streaming(now: float = NOW) -> Callable[..., Iterator[Metric]]:
    return partial(stream_metrics, clock=lambda: now)


def seen(tasks: list[TaskStatus], now: float = NOW) -> Samples:
    with Exporter(streaming(now), 0) as exporter:
        exporter.update(tasks)
        return scrape_samples(exporter.port)


def test_each_task_is_shown_by_stage_and_partition_and_what_it_does_not_know_is_left_out() -> None:
    samples = seen([JOIN_STATUS, AGGREGATE_STATUS])
    buckets = {f"prectr_{what}_seconds_bucket" for what in ("microbatch", "transaction")}
    assert {name for name, _ in samples} == {*GAUGES_AND_COUNTERS, *buckets, *COUNTED}
    for name, expected in GAUGES_AND_COUNTERS.items():
        assert values_by_task(samples, name) == expected
    for name, (stage, partition, label, counts) in COUNTED.items():
        found = {labels: value for (sample, labels), value in samples.items() if sample == name}
        assert found == {
            frozenset({"stage": stage, "partition": partition, label: each}.items()): count
            for each, count in counts.items()
        }


def test_a_duration_is_in_every_bucket_that_is_large_enough() -> None:
    samples = seen([JOIN_STATUS])
    task = {"stage": "join", "partition": "0"}
    for name, bound, count in (
        ("microbatch", "0.01", 1),
        ("microbatch", "0.1", 1),
        ("microbatch", "0.25", 2),
        ("microbatch", "10.0", 2),
        ("microbatch", "+Inf", 3),
        # What takes just as long as a bucket reaches is in it.
        ("transaction", "0.01", 0),
        ("transaction", "0.025", 1),
    ):
        assert samples[f"prectr_{name}_seconds_bucket", frozenset((task | {"le": bound}).items())] == count


def test_a_task_that_has_not_reached_its_commit_has_counts_of_nothing_or_they_would_go_back() -> None:
    names = {name for name, _ in seen([replace(JOIN_STATUS, counts=None), replace(AGGREGATE_STATUS, counts=None)])}
    assert not names & {"prectr_pending_pages", "prectr_pending_clicks", *COUNTED}


def test_a_stage_without_snapshots_has_no_snapshot_metrics() -> None:
    task = TaskStatus(
        stage="aggregate", partition=0, next_offset=1, restore_remaining=0, emitted=1, watermark=0, snapshots=None
    )
    samples = seen([task])
    assert values_by_task(samples, "prectr_task_offset") == {("aggregate", 0): 1}
    assert not [name for name, _ in samples if "snapshot" in name]


def test_a_partition_that_has_gone_takes_its_gauges_and_counters_with_it() -> None:
    with Exporter(streaming(), 0) as exporter:
        exporter.update([JOIN_STATUS, AGGREGATE_STATUS])
        assert any(("partition", "0") in labels for _, labels in scrape_samples(exporter.port))
        exporter.update([AGGREGATE_STATUS])
        assert {dict(labels)["partition"] for _, labels in scrape_samples(exporter.port)} == {"3"}
        exporter.update([])
        assert scrape_samples(exporter.port) == {}


def test_an_age_goes_on_between_two_updates_and_is_never_negative() -> None:
    times = iter([NOW, NOW + 30, NOW - 3600])
    with Exporter(partial(stream_metrics, clock=lambda: next(times)), 0) as exporter:
        exporter.update([JOIN_STATUS])
        ages = [
            values_by_task(scrape_samples(exporter.port), "prectr_snapshot_age_seconds")["join", 0] for _ in range(3)
        ]
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
        samples = scrape_samples(exporter.port)
    assert samples["prectr_trained_pages_total", frozenset({("model", "lr")})] == 64
    assert samples["prectr_late_records_total", frozenset()] == 5
    assert samples["prectr_checkpoint_age_seconds", frozenset()] == 20


def test_a_trainer_without_a_checkpoint_has_no_age_of_one(tmp_path: Path) -> None:
    assert "prectr_checkpoint_age_seconds" not in {metric.name for metric in train_metrics(trained(tmp_path, None))}


def test_a_trainers_quality_metrics_match_a_replays(tmp_path: Path) -> None:
    def quality(metrics: Iterator[Metric]) -> dict[str, Metric]:
        return {metric.name: metric for metric in metrics if "model" in str(metric.samples)}

    live = quality(train_metrics(trained(tmp_path, None)))
    assert live.keys() >= {"prectr_trained_pages", "prectr_auc", "prectr_gauc", "prectr_calibration_ratio"}
    assert live == quality(replay_metrics(snapshot_of({"lr": quality_of(0)})))


def every(tmp_path: Path) -> dict[str, tuple[Callable[..., Iterator[Metric]], object]]:
    return {
        "stream": (streaming(), [JOIN_STATUS, AGGREGATE_STATUS]),
        "train": (train_metrics, trained(tmp_path, NOW)),
        "replay": (replay_metrics, snapshot_of({"lr": quality_of(0)})),
    }


@pytest.mark.parametrize("which", ["stream", "train", "replay"])
def test_every_exporter_keeps_the_conventions(which: str, tmp_path: Path) -> None:
    render, snapshot = every(tmp_path)[which]
    with Exporter(render, 0) as exporter:
        exporter.update(snapshot)
        samples, text = scrape_samples(exporter.port), exposition(exporter.port)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (\S.*)$", text, re.MULTILINE))
    assert samples.keys()
    for name, labels in samples:
        assert re.fullmatch(r"prectr_[a-z_]+", name)
        family = re.sub("_(bucket|count|sum)$", "", name)
        histogram = family != name
        assert {label for label, _ in labels} <= ALLOWED_LABELS | ({"le"} if histogram else set())
        kind = "histogram" if histogram else "counter" if name.endswith("_total") else "gauge"
        assert kinds[family] == kind
        assert helps[family].endswith(".")


@pytest.mark.parametrize("which", ["stream", "train", "replay"])
def test_promtool_finds_nothing_to_say(which: str, tmp_path: Path) -> None:
    render, snapshot = every(tmp_path)[which]
    with Exporter(render, 0) as exporter:
        exporter.update(snapshot)
        text = exposition(exporter.port)
    assert_lint_clean(text)


def test_an_exporter_logs_its_address(caplog: pytest.LogCaptureFixture) -> None:
    options = MetricsOptions(metrics_port=0)
    with caplog.at_level(logging.INFO, "prectr.ops"), options.exporter(stream_metrics) as exporter:
        assert exporter is not None
        assert f"metrics: http://127.0.0.1:{exporter.port}/metrics" in caplog.messages


def test_without_a_port_nothing_is_served_and_an_address_alone_is_wrong_use() -> None:
    with MetricsOptions().exporter(stream_metrics) as exporter:
        assert exporter is None
    with pytest.raises(UsageError, match=r"--metrics-address 0\.0\.0\.0 requires --metrics-port"):
        MetricsOptions(metrics_address="0.0.0.0").exporter(stream_metrics)


def test_the_command_refuses_an_address_without_a_port(tmp_path: Path) -> None:
    flags = ["--bootstrap", "127.0.0.1:1", "--state-dir", tmp_path / "state", "--metrics-address", "0.0.0.0"]
    done = prectr("stream", *flags)
    assert done.returncode == 2
    assert "requires --metrics-port" in done.stderr
    assert "Traceback" not in done.stderr
