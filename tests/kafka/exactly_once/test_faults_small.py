"""Crashes of every kind, on a real Kafka: afterwards everything is as if nothing had happened."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from prectr.stream.kafka.client.topics import Topics
from testkit.command import RunningCommand
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


@pytest.mark.smoke
@pytest.mark.several
def test_kill_9_of_streams_and_trainer_at_random_moments(live: Live, world: Path, expected: RunResult) -> None:
    """Five kills, each after some more output; most of the victims are at work then."""
    rng = random.Random(4)
    live.create()
    live.load(world)
    processes = {name: _start(live, name) for name in ("1", "2", "train")}
    killed = 0
    for name in ("1", "train", "2", "1", "train"):
        _wait_for_output(live, rng.randrange(1, 6), processes)
        killed += processes[name].poll() is None
        live.kill(processes[name])
        processes[name] = _start(live, name)
    for process in processes.values():
        live.wait_for_end(process)
    assert killed >= 3
    assert live.train_and_read("--flush") == expected


@pytest.mark.several
def test_a_process_that_sleeps_through_its_session_is_fenced(live: Live, world: Path, expected: RunResult) -> None:
    live.create()
    live.load(world)
    sleeper = live.start_stream("1", "--until-end", "--flush")
    _wait_for_tasks(live.state_dir("1"), 1)
    sleeper.send_signal(signal.SIGSTOP)
    other = live.start_stream("2", "--until-end", "--flush")
    # All tasks are open in the other process only when the session of the sleeper has expired.
    _wait_for_tasks(live.state_dir("2"), 2 * live.partitions)
    sleeper.send_signal(signal.SIGCONT)
    live.wait_for_end(other)
    live.wait_for_end(sleeper)
    assert live.train_and_read("--flush") == expected


def _start(live: Live, name: str) -> RunningCommand:
    if name == "train":
        return live.start_train("--checkpoint-interval", "0", "--until-end", "--flush")
    return live.start_stream(name, "--until-end", "--flush")


def _wait_for_output(live: Live, more: int, processes: dict[str, RunningCommand]) -> None:
    """Wait until the topics behind the stages have this many more records, or all processes have ended."""
    topics = Topics(live.prefix)
    partitions = [
        TopicPartition(topic, number)
        for topic in (topics.joined_pages, topics.examples)
        for number in range(live.partitions)
    ]
    consumer = KafkaConsumer(bootstrap_servers=live.bootstrap)
    try:
        goal = sum(consumer.end_offsets(partitions).values()) + more
        deadline = time.monotonic() + live.timeout
        while sum(consumer.end_offsets(partitions).values()) < goal:
            if all(process.poll() is not None for process in processes.values()):
                return
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        consumer.close()


def _wait_for_tasks(folder: Path, count: int) -> None:
    """Wait until so many tasks have their state in a folder."""
    deadline = time.monotonic() + 60
    while len(list(folder.glob("join-[0-9]*")) + list(folder.glob("aggregate-[0-9]*"))) < count:
        assert time.monotonic() < deadline, sorted(path.name for path in folder.glob("*"))
        time.sleep(0.02)
