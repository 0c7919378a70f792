"""Many small steps, the log of `tests.kit.stages.disordered`, and its undisturbed run."""

from pathlib import Path

import pytest

from tests.kit.stages.disordered import world, write
from tests.kit.stages.replays import Ran, ran, read_examples
from tests.oracle.oracle import replay as brute_force


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many steps of a small log; and no waiting for the disk, which no test here takes the power from."""
    monkeypatch.setattr("prectr.stream.replay.runner.STEP_LINES", 40)
    monkeypatch.setattr("prectr.stream.replay.run_checkpoint._sync", lambda path: None)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "log.jsonl", world())


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The log of `world()` in one undisturbed run, checked against the oracle."""
    folder = tmp_path_factory.mktemp("whole")
    found = ran([write(folder / "log.jsonl", world())], folder / "run", examples=folder / "out.jsonl")
    assert read_examples(folder / "out.jsonl") == brute_force(world(), 2)["examples"]
    return found
