"""Training that ends at a loss that is not finite is seen: before the end, and by the trainer that is started again."""

import json
import os
from pathlib import Path

from prectr.ops.metrics.train import train_metrics, train_snapshot
from prectr.ops.training.failure_marker import REFUSED, SEEN_AFTER, leave_word, refused_since, wait_to_be_seen
from prectr.state.errors import TrainingError
from tests.ops.metrics.test_live import Learned
from tests.ops.metrics.test_replay import quality_of

ERROR = TrainingError("the click loss of a batch is nan")


def shown(run_dir: Path) -> float:
    """What is served of a run folder."""
    snapshot = train_snapshot({"lr": Learned(quality_of(0))}, 0, run_dir)
    (family,) = [family for family in train_metrics(snapshot) if family.name == "prectr_loss_not_finite"]
    (sample,) = family.samples
    return float(sample.value)


def checkpoint(run_dir: Path, name: str, at: float) -> None:
    folder = run_dir / "checkpoints" / name
    folder.mkdir(parents=True)
    os.utime(folder, (at, at))


def test_it_is_told_from_the_end_until_something_is_saved_again(tmp_path: Path) -> None:
    assert shown(tmp_path) == 0
    leave_word(tmp_path, ERROR)
    ended = (tmp_path / REFUSED).stat().st_mtime
    assert json.loads((tmp_path / REFUSED).read_bytes()) == {"error": str(ERROR)}
    assert shown(tmp_path) == 1
    checkpoint(tmp_path, "00000001", ended - 30)
    assert shown(tmp_path) == 1
    checkpoint(tmp_path, "00000002", ended + 30)
    assert shown(tmp_path) == 0


def test_a_second_end_counts_again(tmp_path: Path) -> None:
    leave_word(tmp_path, ERROR)
    os.utime(tmp_path / REFUSED, (1_700_000_000, 1_700_000_000))
    assert not refused_since(tmp_path, 1_700_000_060.0)
    leave_word(tmp_path, ERROR)
    assert refused_since(tmp_path, 1_700_000_060.0)


def test_the_end_waits_to_be_seen_and_for_nobody_who_asks_it_to_stop() -> None:
    now = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    wait_to_be_seen(lambda: False, lambda: now, sleep)
    assert SEEN_AFTER <= now - 100 < SEEN_AFTER + 1
    now = 100.0
    wait_to_be_seen(lambda: now >= 103, lambda: now, sleep)
    assert now < 104
