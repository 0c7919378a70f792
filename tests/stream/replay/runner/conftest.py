"""Small steps, the log of `tests.kit.stages.disordered`, and its uninterrupted run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.oracle.oracle import expected_replay as brute_force
from tests.kit.stages.disordered import disordered_log, write_lines
from tests.kit.stages.replays import ReplayResult, read_examples, replay_to_end


@pytest.fixture(scope="package", autouse=True)
def settled_early() -> Iterator[None]:
    """A partition settles on a time after four turns, so that pages close in a small log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prectr.stream.join.event_clock.SETTLING_TURNS", 4)
        patch.setattr("testkit.oracle.clock.SETTLING_TURNS", 4)
        yield


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many steps of a small log; and no fsync, since no test here cuts the power."""
    monkeypatch.setattr("prectr.stream.replay.runner.STEP_LINES", 40)
    monkeypatch.setattr("prectr.stream.replay.run_checkpoint.fsync_path", lambda path: None)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "log.jsonl", disordered_log())


@pytest.fixture(scope="package")
def whole(settled_early: None, tmp_path_factory: pytest.TempPathFactory) -> ReplayResult:
    """The log in one uninterrupted run, checked against the oracle."""
    folder = tmp_path_factory.mktemp("whole")
    found = replay_to_end(
        [write_lines(folder / "log.jsonl", disordered_log())], folder / "run", examples=folder / "out.jsonl"
    )
    assert read_examples(folder / "out.jsonl") == brute_force(disordered_log(), 2)["examples"]
    return found
