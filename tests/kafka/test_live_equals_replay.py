"""The live system on a real Kafka gives what the embedded replay of the same log gives, to the last bit."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.kafka.live import Live, Result, replay
from tests.kafka.worlds import adversarial, halves, simulated
from tests.oracle.command import write_log
from tests.oracle.contract import partition_of

pytestmark = pytest.mark.usefixtures("broker")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return replay(tmp_path_factory.mktemp("expected"), world)


@pytest.mark.parametrize("processes", [1, pytest.param(3, marks=pytest.mark.several)])
def test_any_number_of_processes_equals_replay(processes: int, live: Live, world: Path, expected: Result) -> None:
    live.create()
    live.load(world)
    live.stream(processes, "--flush")
    assert live.result("--flush") == expected


@pytest.mark.several
def test_a_disordered_log_equals_replay(live: Live, tmp_path: Path) -> None:
    log = adversarial(tmp_path)
    live.create()
    live.load(log)
    live.stream(2, "--flush")
    assert live.result("--flush") == replay(tmp_path, log)


@pytest.mark.several
def test_more_processes_than_partitions_and_quiet_partitions_end_too(live: Live, tmp_path: Path, world: Path) -> None:
    """Nobody is in partitions 1 and 2; of four processes one has no task."""
    lines = [
        line for line in world.read_bytes().splitlines() if b'"user_id"' in line and _home(line, live.partitions) == 0
    ]
    log = write_log(tmp_path / "quiet.jsonl", lines)
    live.create()
    live.load(log)
    live.stream(4, "--flush")
    assert live.result("--flush") == replay(tmp_path, log)


@pytest.mark.several
@pytest.mark.parametrize("partitions", [1])
def test_an_end_without_flush_then_further_events_equals_one_go(
    partitions: int, live: Live, tmp_path: Path, world: Path
) -> None:
    first, second = halves(world, partitions, tmp_path)
    live.partitions = partitions
    live.create()
    live.load(first)
    live.stream(2)
    assert live.result() == replay(tmp_path / "half", first, flush=False, partitions=partitions)
    live.load(second)
    live.stream(1, "--flush")
    assert live.result("--flush") == replay(tmp_path / "whole", world, partitions=partitions)


@pytest.mark.several
@pytest.mark.parametrize("partitions", [1])
def test_a_pause_in_the_load_and_a_trainer_stopped_again_and_again_change_nothing(
    partitions: int, live: Live, tmp_path: Path, world: Path
) -> None:
    """The pause is longer than the time after which a source says that it is idle."""
    first, second = halves(world, partitions, tmp_path)
    live.partitions = partitions
    live.create()
    live.load(first)
    streams = [live.start_stream(name) for name in ("1", "2")]
    _train_for_a_while(live, signal.SIGTERM)
    _train_for_a_while(live, signal.SIGINT)
    live.load(second)
    _train_for_a_while(live, signal.SIGTERM)
    for stream, number in zip(streams, (signal.SIGTERM, signal.SIGINT), strict=True):
        stream.send_signal(number)
        live.ended(stream)
    live.stream(1, "--flush")
    assert live.result("--flush") == replay(tmp_path, world, partitions=partitions)


def _train_for_a_while(live: Live, number: signal.Signals) -> None:
    """Train until there is another checkpoint, or all has been learned for a good while, and stop."""
    before = _checkpoints(live)
    trainer = live.start_train("--cut-every", "0")
    until = time.monotonic() + 12
    while _checkpoints(live) == before and time.monotonic() < until:
        time.sleep(0.02)
    trainer.send_signal(number)
    live.ended(trainer)


def _checkpoints(live: Live) -> list[str]:
    return sorted(path.name for path in (live.folder / "train" / "checkpoints").glob("[0-9]*[0-9]"))


def _home(line: bytes, partitions: int) -> int:
    try:
        return partition_of(json.loads(line)["user_id"], partitions)
    except (ValueError, TypeError):
        return -1
