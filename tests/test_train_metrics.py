"""What a trainer serves of how it learns: where its time goes, its losses, how far behind the stream it is."""

import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from ops.exporter import Exporter
from ops.train_metrics import Learning, ModelLearning, TrainSnapshot, train_metrics, train_snapshot
from stream.outcomes import ClickOutcomes, ImpressionOutcomes, Outcomes
from tests.kit.scrape import ALLOWED_LABELS, Samples, exposition, scraped
from tests.test_metrics import quality_of
from tests.test_metrics_live import NOW, Learned

OUTCOMES = Outcomes(ImpressionOutcomes(100, 80, 15, 3, 2), ClickOutcomes(50, 30, 5, 4, 3, 2, 5, 1), 7)


def learning(heard: int | None = 1_700_000_090_000, newest: int | None = 1_700_000_000_000) -> Learning:
    return Learning(
        models={
            "lr": ModelLearning(
                seconds={"collate": 1.5, "forward": 2.0, "backward": 0.25, "step": 0.5},
                losses={"click": 321.5, "order": 2.5},
                impressions=640,
                gradient_norm=0.75,
                newest=newest,
            )
        },
        waited=12.5,
        heard=heard,
        published=40,
        dropped=2,
        outcomes=OUTCOMES,
    )


def served(given: Learning | None, tmp_path: Path) -> tuple[Samples, str]:
    snapshot: TrainSnapshot = train_snapshot({"lr": Learned(quality_of(0))}, 5, tmp_path, given)
    with Exporter(partial(train_metrics, clock=lambda: NOW), 0) as exporter:
        exporter.update(snapshot)
        return scraped(exporter.port), exposition(exporter.port)


def at(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def test_time_losses_and_the_norm_are_shown_by_model(tmp_path: Path) -> None:
    samples, _ = served(learning(), tmp_path)
    seconds = {"collate": 1.5, "forward": 2.0, "backward": 0.25, "step": 0.5}
    for step, value in seconds.items():
        assert at(samples, "prectr_batch_seconds_total", model="lr", stage=step) == value
    # All models wait together: an empty label is none.
    assert at(samples, "prectr_batch_seconds_total", model="", stage="wait") == 12.5
    assert at(samples, "prectr_loss_nats_total", model="lr", type="click") == 321.5
    assert at(samples, "prectr_loss_nats_total", model="lr", type="order") == 2.5
    assert at(samples, "prectr_trained_impressions_total", model="lr") == 640
    assert at(samples, "prectr_gradient_norm", model="lr") == 0.75
    assert at(samples, "prectr_published_stretches_total") == 40
    assert at(samples, "prectr_dropped_stretches_total") == 2


def test_how_records_ended_is_shown_as_the_frames_told_it(tmp_path: Path) -> None:
    samples, _ = served(learning(), tmp_path)
    assert at(samples, "prectr_events_total", type="impression") == 100
    assert at(samples, "prectr_clicks_total", outcome="joined") == 30
    assert at(samples, "prectr_impressions_total", outcome="emitted") == 80
    assert at(samples, "prectr_pages_open", stage="sessions") == 15
    assert at(samples, "prectr_clicks_waiting") == 5


@pytest.mark.parametrize(
    ("heard", "newest", "behind"),
    [
        (1_700_000_090_000, 1_700_000_000_000, 90),
        # What is learned may be ahead of what the sources have told since.
        (1_700_000_000_000, 1_700_000_090_000, 0),
        (None, 1_700_000_000_000, None),
        (1_700_000_090_000, None, None),
    ],
)
def test_freshness_is_the_event_time_between_stream_and_model(
    heard: int | None, newest: int | None, behind: float | None, tmp_path: Path
) -> None:
    samples, _ = served(learning(heard, newest), tmp_path)
    assert at(samples, "prectr_model_freshness_seconds", model="lr") == behind


def test_the_conventions_hold_and_promtool_finds_nothing_to_say(tmp_path: Path) -> None:
    samples, text = served(learning(), tmp_path)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (\S.*)$", text, re.MULTILINE))
    for name, labels in samples:
        assert re.fullmatch(r"prectr_[a-z_]+", name)
        assert {label for label, _ in labels} <= ALLOWED_LABELS
        assert kinds[name] == ("counter" if name.endswith("_total") else "gauge")
        assert helps[name].endswith(".")
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text, check=False, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
