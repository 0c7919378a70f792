"""Training that stops at a loss that is not finite is exported: before the exit, and by the restarted trainer."""

import json
import os
from pathlib import Path

import pytest

from prectr.ops.metrics.train import train_metrics, train_snapshot
from prectr.ops.training.failure_marker import (
    FAILURE_FILE,
    LINGER_SECONDS,
    failed_since,
    linger_for_scrape,
    read_failure,
    write_failure,
)
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


def test_a_failure_is_reported_until_the_next_checkpoint(tmp_path: Path) -> None:
    assert (shown(tmp_path), read_failure(tmp_path)) == (0, None)
    write_failure(tmp_path, ERROR)
    assert read_failure(tmp_path) == str(ERROR)
    ended = (tmp_path / FAILURE_FILE).stat().st_mtime
    assert json.loads((tmp_path / FAILURE_FILE).read_bytes()) == {"error": str(ERROR)}
    assert shown(tmp_path) == 1
    checkpoint(tmp_path, "00000001", ended - 30)
    assert shown(tmp_path) == 1
    checkpoint(tmp_path, "00000002", ended + 30)
    assert (shown(tmp_path), read_failure(tmp_path)) == (0, None)


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_marker_that_is_being_written_is_no_failure_yet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FAILURE_FILE).write_bytes(content)
    assert read_failure(tmp_path) is None


def test_a_second_failure_is_reported_again(tmp_path: Path) -> None:
    write_failure(tmp_path, ERROR)
    os.utime(tmp_path / FAILURE_FILE, (1_700_000_000, 1_700_000_000))
    assert not failed_since(tmp_path, 1_700_000_060.0)
    write_failure(tmp_path, ERROR)
    assert failed_since(tmp_path, 1_700_000_060.0)


def test_exit_lingers_for_a_scrape_unless_stopped() -> None:
    now = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    linger_for_scrape(lambda: False, lambda: now, sleep)
    assert LINGER_SECONDS <= now - 100 < LINGER_SECONDS + 1
    now = 100.0
    linger_for_scrape(lambda: now >= 103, lambda: now, sleep)
    assert now < 104
