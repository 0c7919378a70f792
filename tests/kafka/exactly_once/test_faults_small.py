"""Crashes of every kind, on a real Kafka: afterwards everything is as if nothing had happened."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.kafka.live import Live, RunResult, replay_log
from tests.kafka.worlds import adversarial

pytestmark = pytest.mark.usefixtures("broker")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adversarial(tmp_path_factory.mktemp("world"), seed=22)


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return replay_log(tmp_path_factory.mktemp("expected"), world)


def test_crashes_at_named_points_and_a_lost_state_folder(live: Live, world: Path, expected: RunResult) -> None:
    """Each crash lets a few transactions through; the state folder is deleted after two of them."""
    live.create()
    live.load(world)
    crashes = [
        ("after_produce", 2),
        ("before_commit", 3),
        ("after_commit", 2),
        ("after_commit", 5),
        ("before_commit", 1),
        ("after_write", 4),
    ]
    for number, crash in enumerate(crashes):
        process = live.start_stream("1", "--until-end", "--flush", crash=crash)
        process.wait(live.timeout)
        assert process.returncode in (-signal.SIGKILL, 0)
        if number in (2, 4):
            shutil.rmtree(live.state_dir("1"))
    live.stream(1, "--flush")
    assert live.train_and_read("--flush") == expected


@pytest.mark.several
def test_kill_9_of_streams_and_trainer_at_random_moments(live: Live, world: Path, expected: RunResult) -> None:
    rng = random.Random(4)
    live.create()
    live.load(world)
    streams = {name: live.start_stream(name, "--until-end", "--flush") for name in ("1", "2")}
    trainer = live.start_train("--checkpoint-interval", "0", "--until-end", "--flush")
    for _ in range(5):
        time.sleep(rng.uniform(0.8, 3))
        name = rng.choice(["1", "2", "train"])
        if name == "train":
            live.kill(trainer)
            trainer = live.start_train("--checkpoint-interval", "0", "--until-end", "--flush")
        else:
            live.kill(streams[name])
            streams[name] = live.start_stream(name, "--until-end", "--flush")
    for process in streams.values():
        live.wait_for_end(process)
    live.wait_for_end(trainer)
    assert live.train_and_read("--flush") == expected


@pytest.mark.several
def test_a_process_that_sleeps_through_its_session_is_fenced(live: Live, world: Path, expected: RunResult) -> None:
    live.create()
    live.load(world)
    sleeper = live.start_stream("1", "--until-end", "--flush")
    _wait_for_state(live.state_dir("1"))
    sleeper.send_signal(signal.SIGSTOP)
    other = live.start_stream("2", "--until-end", "--flush")
    time.sleep(6)
    sleeper.send_signal(signal.SIGCONT)
    live.wait_for_end(other)
    live.wait_for_end(sleeper)
    assert live.train_and_read("--flush") == expected


def _wait_for_state(folder: Path) -> None:
    until = time.monotonic() + 30
    while not (folder / "aggregate-0").is_dir():
        assert time.monotonic() < until
        time.sleep(0.02)
