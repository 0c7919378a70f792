"""Lines in flight to a broker whose answers arrive in any order, at any time."""

import random
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from prectr.state.errors import PrectrError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.log_loader import load
from testkit.command import write_log
from tests.kit.stages.events import T, page

LINES, BATCH = 40, 8


class Answer:
    """The outcome of a line: known after some number of checks, never if that is None."""

    def __init__(self, checks: int | None, error: KafkaError | None) -> None:
        self._checks = checks
        self._error = error

    @property
    def is_done(self) -> bool:
        if self._checks:
            self._checks -= 1
        return self._checks == 0

    @property
    def exception(self) -> KafkaError | None:
        return self._error if self._checks == 0 else None

    def get(self, timeout: float) -> None:
        if not self.is_done:
            raise KafkaTimeoutError(f"{timeout} s")


class Producer:
    """Returns the given answers, one per line."""

    def __init__(self, answers: list[Answer]) -> None:
        self._answers = iter(answers)

    def send(self, topic: str, **record: Any) -> Answer:
        return next(self._answers)

    def close(self, timeout: float | None = None) -> None:
        pass


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(write_log(tmp_path / "log.jsonl", [page(f"r{n}", f"u{n}", T + n) for n in range(LINES)]))


@pytest.mark.parametrize("seed", range(40))
def test_every_line_is_accounted_for_and_a_failure_does_not_block(
    seed: int, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure, the client may never complete other lines."""
    drawn = random.Random(seed)
    fails = seed % 2 == 1
    errors = [MessageSizeTooLargeError() if drawn.random() < 0.1 else None for _ in range(LINES)]
    answers = [Answer(drawn.randint(1, 30), error) for error in errors]
    if fails:
        failing = drawn.randrange(LINES)
        for number in range(failing - failing % BATCH, LINES):
            answers[number] = Answer(drawn.choice([None, drawn.randint(1, 30)]), None)
        answers[failing] = Answer(drawn.randint(1, 30), KafkaTimeoutError("the broker has gone"))
    monkeypatch.setattr("prectr.stream.kafka.io.log_loader.partition_count", lambda connection, topic: 3)
    monkeypatch.setattr("prectr.stream.kafka.io.log_loader.fetch_max_message_bytes", lambda connection, topic: None)
    monkeypatch.setattr("prectr.stream.kafka.io.log_loader._PACED_BATCH_LINES", BATCH)
    monkeypatch.setattr("prectr.stream.kafka.io.log_loader._MAX_IN_FLIGHT_BYTES", drawn.choice([0, 1 << 20]))
    monkeypatch.setattr(Connection, "producer", lambda self, **settings: Producer(answers))
    given = ([log], Connection("nowhere:9"), Topics())
    if fails:
        with pytest.raises(PrectrError, match="the broker has gone"):
            load(*given, speed=1e9)
    else:
        loaded = load(*given, speed=1e9)
        refused = sum(error is not None for error in errors)
        assert (loaded.lines, loaded.events, loaded.oversized) == (LINES, LINES - refused, refused)
