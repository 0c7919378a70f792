"""What a trainer serves of how it learns: where its time goes, its losses, how far behind the stream it is."""

import re
from functools import partial
from pathlib import Path

import pytest

from prectr.model.config import TrainerConfig
from prectr.ops.metrics.exporter import Exporter
from prectr.ops.metrics.train import (
    IdleRatio,
    ModelTrainingStatus,
    TrainerStatus,
    TrainSnapshot,
    learning_rates,
    train_metrics,
    train_snapshot,
)
from tests.kit.observe.promtool import assert_lint_clean
from tests.kit.observe.scrape import ALLOWED_LABELS, Samples, exposition, scrape_samples, values_by_task
from tests.ops.metrics.test_live import NOW, Learned
from tests.ops.metrics.test_replay import quality_of


def learning(watermark: int | None = 1_700_000_090_000, newest: int | None = 1_700_000_000_000) -> TrainerStatus:
    return TrainerStatus(
        models={
            "lr": ModelTrainingStatus(
                phase_seconds={"collate": 1.5, "forward": 2.0, "backward": 0.25, "step": 0.5},
                losses={"click": 321.5, "monotonicity": 2.5},
                batches=12,
                impressions=640,
                gradient_norm=0.75,
                newest_close_time=newest,
                learning_rates={"sparse": 0.3},
                hard_negatives=320,
                margin_violations=80,
            )
        },
        wait_seconds=12.5,
        latest_watermark=watermark,
        published_windows=40,
        dropped_windows=2,
        lag=[7, None, 0],
        idle_ratio=0.25,
    )


def served(given: TrainerStatus | None, tmp_path: Path) -> tuple[Samples, str]:
    snapshot: TrainSnapshot = train_snapshot({"lr": Learned(quality_of(0))}, 5, tmp_path, given)
    with Exporter(partial(train_metrics, clock=lambda: NOW), 0) as exporter:
        exporter.update(snapshot)
        return scrape_samples(exporter.port), exposition(exporter.port)


def at(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def test_time_losses_and_the_norm_are_shown_by_model(tmp_path: Path) -> None:
    samples, _ = served(learning(), tmp_path)
    seconds = {"collate": 1.5, "forward": 2.0, "backward": 0.25, "step": 0.5}
    for step, value in seconds.items():
        assert at(samples, "prectr_train_seconds_total", model="lr", phase=step) == value
    # All models wait together: an empty label is none.
    assert at(samples, "prectr_train_seconds_total", model="", phase="wait") == 12.5
    assert at(samples, "prectr_loss_nats_total", model="lr", loss="click") == 321.5
    assert at(samples, "prectr_loss_nats_total", model="lr", loss="monotonicity") == 2.5
    assert at(samples, "prectr_trained_impressions_total", model="lr") == 640
    assert at(samples, "prectr_trained_batches_total", model="lr") == 12
    assert at(samples, "prectr_gradient_norm", model="lr") == 0.75
    assert at(samples, "prectr_learning_rate", model="lr", param_group="sparse") == 0.3
    assert at(samples, "prectr_hard_negatives_total", model="lr") == 320
    assert at(samples, "prectr_margin_violations_total", model="lr") == 80
    assert at(samples, "prectr_device_idle_ratio") == 0.25
    assert at(samples, "prectr_quality_windows_published_total") == 40
    assert at(samples, "prectr_quality_windows_dropped_total") == 2


def test_the_lag_is_shown_by_partition_where_it_is_known(tmp_path: Path) -> None:
    samples, _ = served(learning(), tmp_path)
    assert values_by_task(samples, "prectr_consumer_lag_records") == {("train", 0): 7, ("train", 2): 0}


def test_record_outcomes_are_exported_by_the_stages_alone(tmp_path: Path) -> None:
    samples, _ = served(learning(), tmp_path)
    exported = {name for name, _ in samples}
    of_stages = ("events_total", "pages_total", "clicks_total", "pending_pages")
    assert not exported & {f"prectr_{name}" for name in of_stages}


def test_a_device_is_idle_for_what_it_did_not_compute_in_the_last_half_minute() -> None:
    times = iter([100.0, 100.0, 110.0, 120.0, 140.0, 150.0, 160.0])
    idle = IdleRatio(lambda: next(times))
    assert idle.update(0.0) is None
    # Of 10 s it computed 4, of 20 s 9: what remains is idle.
    assert idle.update(4.0) == pytest.approx(0.6)
    assert idle.update(9.0) == pytest.approx(0.55)
    # From here on the first seconds no longer count: 20 s of 30 s since second 110.
    assert idle.update(24.0) == pytest.approx(1 / 3)
    assert idle.update(24.0) == pytest.approx(0.5)
    # The device reports its work late: the ratio is never negative.
    assert idle.update(99.0) == 0.0


@pytest.mark.parametrize(
    ("model", "kinds"),
    [("lr", {"sparse"}), ("wide-deep+", {"sparse", "dense"}), ("prectr-v2", {"sparse", "dense", "encoder"})],
)
def test_each_kind_of_weights_that_a_model_has_shows_its_step(model: str, kinds: set[str]) -> None:
    config = TrainerConfig(model=model, ftrl_alpha=0.5, embedding_lr=0.05, dense_lr=0.002, encoder_lr=0.0003)
    expected = {"sparse": 0.5 if model == "lr" else 0.05, "dense": 0.002, "encoder": 0.0003}
    assert learning_rates(config) == {kind: expected[kind] for kind in kinds}


@pytest.mark.parametrize(
    ("watermark", "newest", "behind"),
    [
        (1_700_000_090_000, 1_700_000_000_000, 90),
        # The trained pages may be ahead of the watermarks received since.
        (1_700_000_000_000, 1_700_000_090_000, 0),
        (None, 1_700_000_000_000, None),
        (1_700_000_090_000, None, None),
    ],
)
def test_freshness_is_the_event_time_between_stream_and_model(
    watermark: int | None, newest: int | None, behind: float | None, tmp_path: Path
) -> None:
    samples, _ = served(learning(watermark, newest), tmp_path)
    assert at(samples, "prectr_model_staleness_seconds", model="lr") == behind


def test_the_conventions_hold_and_promtool_finds_nothing_to_say(tmp_path: Path) -> None:
    samples, text = served(learning(), tmp_path)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (\S.*)$", text, re.MULTILINE))
    for name, labels in samples:
        assert re.fullmatch(r"prectr_[a-z_]+", name)
        assert {label for label, _ in labels} <= ALLOWED_LABELS
        assert kinds[name] == ("counter" if name.endswith("_total") else "gauge")
        assert helps[name].endswith(".")
    assert_lint_clean(text)
