"""A stream worker that runs into a limit of the system ends and names it; restarted, it gives what a replay gives."""

import os
import resource
from pathlib import Path

import pytest

from tests.kafka.live import PARTITIONS, Live, replay_log
from tests.kafka.worlds import simulated

pytestmark = pytest.mark.usefixtures("broker")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("world"), pages=3_000)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (resource.RLIMIT_NOFILE, "the limit of open files is"),
        (resource.RLIMIT_FSIZE, "the limit of the size of a file"),
    ],
    ids=["open files", "file size"],
)
def test_a_limit_that_is_hit_while_it_runs_loses_nothing(
    live: Live, world: Path, tmp_path: Path, kind: int, named: str
) -> None:
    live.create()
    # A snapshot copies the store, which needs files.
    worker = live.start_stream("1", "--snapshots", live.folder / "snapshots", "--snapshot-interval", "0.1")
    for stage in ("join", "aggregate"):
        for partition in range(PARTITIONS):
            live.wait_for_log(worker, f"{stage} task {partition}: open at offset")
    opened = len(os.listdir(f"/proc/{worker.pid}/fd"))
    limit = opened if kind == resource.RLIMIT_NOFILE else 50_000
    resource.prlimit(worker.pid, kind, (limit, limit))
    live.load(world)
    error = live.wait_for_end(worker, 1).splitlines()[-1]
    assert named in error
    assert "delete" not in error
    live.stream(1, "--flush")
    assert live.train_and_read("--flush") == replay_log(tmp_path, world)
