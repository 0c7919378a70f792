"""The live system on a real Kafka equals the replay of the same log, bit for bit."""

import signal
import time
from pathlib import Path

import pytest

from testkit.command import write_log
from tests.kafka.live import Live, RunResult, replay_log
from tests.kafka.parts import late_records, lines_of, partition_of_line, split_in_three
from tests.kafka.worlds import adversarial, of_many_forms, simulated, split_orderly_log

pytestmark = pytest.mark.usefixtures("broker")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return replay_log(tmp_path_factory.mktemp("expected"), world)


@pytest.mark.parametrize("processes", [1, pytest.param(3, marks=pytest.mark.several)])
def test_any_number_of_processes_equals_replay(processes: int, live: Live, world: Path, expected: RunResult) -> None:
    live.create()
    live.load(world)
    live.stream(processes, "--flush")
    assert live.train_and_read("--flush") == expected


def test_sessions_features_actions_and_empty_pages_equal_replay(live: Live, tmp_path: Path) -> None:
    log = of_many_forms(tmp_path)
    live.create()
    live.load(log)
    live.stream(1, "--flush")
    read = live.train_and_read("--flush")
    assert read == replay_log(tmp_path, log)
    assert read.outcomes["pages"]["empty"] > 10
    assert read.outcomes["clicks"]["other_action"] > 3


@pytest.mark.several
def test_a_disordered_log_equals_replay(live: Live, tmp_path: Path) -> None:
    log = adversarial(tmp_path)
    live.create()
    live.load(log)
    live.stream(2, "--flush")
    assert live.train_and_read("--flush") == replay_log(tmp_path, log)


@pytest.mark.several
def test_more_processes_than_partitions_and_quiet_partitions_end_too(live: Live, tmp_path: Path, world: Path) -> None:
    """Nobody is in partitions 1 and 2; of four processes one has no task."""
    lines = [line for line in lines_of(world) if partition_of_line(line, live.partitions) == 0]
    log = write_log(tmp_path / "quiet.jsonl", lines)
    live.create()
    live.load(log)
    live.stream(4, "--flush")
    assert live.train_and_read("--flush") == replay_log(tmp_path, log)


@pytest.mark.several
@pytest.mark.parametrize("partitions", [1, 3])
def test_an_end_without_flush_then_further_events_equals_one_go(
    partitions: int, live: Live, tmp_path: Path, world: Path
) -> None:
    """At an end every closed page is released, so the cut is where none that is still open closes before them."""
    first, second = split_orderly_log(world, partitions, tmp_path)
    live.partitions = partitions
    live.create()
    live.load(first)
    live.stream(2)
    assert live.train_and_read() == replay_log(tmp_path / "half", first, flush=False, partitions=partitions)
    live.load(second)
    live.stream(1, "--flush")
    assert late_records(live) == 0
    assert live.train_and_read("--flush") == replay_log(tmp_path / "whole", world, partitions=partitions)


@pytest.mark.several
def test_a_load_with_pauses_and_a_trainer_stopped_again_and_again_change_nothing(
    live: Live, tmp_path: Path, world: Path, expected: RunResult
) -> None:
    """Cut anywhere. The trainer works, with pauses of its own, while the log comes in three parts."""
    live.create()
    streams = [live.start_stream(name) for name in ("1", "2")]
    for part, number in zip(
        split_in_three(lines_of(world), seed=4), (signal.SIGTERM, signal.SIGINT, signal.SIGTERM), strict=True
    ):
        live.load(write_log(tmp_path / "part.jsonl", part))
        _train_for_a_while(live, number)
    for stream, number in zip(streams, (signal.SIGTERM, signal.SIGINT), strict=True):
        live.request_stop(stream, number)
        live.wait_for_end(stream)
    live.stream(1, "--flush")
    assert late_records(live) == 0
    assert live.train_and_read("--flush") == expected


def _train_for_a_while(live: Live, number: signal.Signals) -> None:
    """Train until there is another checkpoint, or all has been learned for a good while, and stop."""
    before = _checkpoints(live)
    trainer = live.start_train("--checkpoint-interval", "0")
    until = time.monotonic() + 12
    while _checkpoints(live) == before and time.monotonic() < until:
        time.sleep(0.02)
    live.request_stop(trainer, number)
    live.wait_for_end(trainer)


def _checkpoints(live: Live) -> list[str]:
    return sorted(path.name for path in (live.folder / "train" / "checkpoints").glob("[0-9]*[0-9]"))
