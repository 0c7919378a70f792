"""Two trainers that torchrun starts, with run folders of their own, hold one model, however often they are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prectr.stream.replay.run_checkpoint import list_checkpoints
from testkit.command import INSTALLED, environment
from tests.kafka.live import MODEL, Live, RunResult, replay_log, result_of
from tests.kafka.worlds import simulated

pytestmark = [
    pytest.mark.usefixtures("broker"),
    pytest.mark.skipif(not INSTALLED.exists(), reason="torchrun starts the installed command"),
]
RANKS = 2
_SECONDS = 120


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A step takes a thousand pages, and a cut follows a step.
    return simulated(tmp_path_factory.mktemp("world"), pages=8_000)


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return replay_log(tmp_path_factory.mktemp("expected"), world)


class Torchrun:
    """Starts the trainers of one run, several at a time, and ends what is left of them. folder: that of rank 0."""

    def __init__(self, live: Live, run: str) -> None:
        self.folder = live.folder / f"{run}-0"
        self._train = ["train", "--bootstrap", live.bootstrap, "--topic-prefix", live.prefix, "--model", MODEL]
        self._train += ["--client-config", str(small_polls(live.folder, 1))]
        self._log = live.folder / f"{run}.log"
        self._run_dirs = str(live.folder / run)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str) -> None:
        # Standalone, for a port of its own: torchrun's default is the same for all.
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
        # Each rank has a run folder of its own, as on machines that share none.
        each = ["--no-python", "sh", "-c", 'exec "$0" "$@" --run-dir "$RUN_DIRS-$RANK"', str(INSTALLED)]
        command = [*torchrun, *each, *self._train, *flags]
        # It leaves a folder behind where temporary files go.
        settings = environment(TMPDIR=str(self.folder.parent), RUN_DIRS=self._run_dirs)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=settings)

    def end(self) -> int:
        """Wait until all have ended; returns torchrun's exit code."""
        assert self._process is not None
        return self._process.wait(_SECONDS)

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def terminate(self) -> None:
        assert self._process is not None
        self._process.terminate()

    def kill(self, rank: int) -> None:
        """Kill -9 of one of them; torchrun ends the others."""
        os.kill(self._workers()[rank], signal.SIGKILL)

    def clear(self) -> None:
        """Kill all that is left."""
        for pid in self._workers().values():
            os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(_SECONDS)

    def wait_for_checkpoints(self, more: int) -> None:
        """Until so many more checkpoints have been made than there are."""
        last = self._newest_checkpoint() + more
        until = time.monotonic() + _SECONDS
        while self._newest_checkpoint() < last:
            assert time.monotonic() < until, self.output()
            time.sleep(0.01)

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.folder / "report.json").read_bytes())
        return report

    def _newest_checkpoint(self) -> int:
        return max((int(cut.name) for cut in list_checkpoints(self.folder / "checkpoints")), default=0)

    def _workers(self) -> dict[int, int]:
        """Process by rank."""
        if self._process is None or self._process.poll() is not None:
            return {}
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        found = {}
        for child in children:
            settings = Path(f"/proc/{child}/environ").read_text().split("\0")
            rank = next((setting.partition("=")[2] for setting in settings if setting.startswith("RANK=")), None)
            if rank is not None:
                found[int(rank)] = int(child)
        return found


def small_polls(folder: Path, records: int) -> Path:
    """Client settings that make many small steps of a short log."""
    path = folder / f"polls-{records}.toml"
    path.write_text(f"max_poll_records = {records}\n")
    return path


@pytest.fixture
def runs(live: Live) -> Iterator[dict[str, Torchrun]]:
    runs = {name: Torchrun(live, name) for name in ("calm", "disturbed")}
    yield runs
    for run in runs.values():
        run.clear()


def test_two_ranks_hold_one_model_through_kills_and_stops(
    live: Live, world: Path, expected: RunResult, runs: dict[str, Torchrun]
) -> None:
    live.create()
    live.load(world)
    live.stream(1, "--flush", "--client-config", str(small_polls(live.folder, 100)))
    calm, disturbed = runs["calm"], runs["disturbed"]
    calm.start("--until-end", "--flush")
    assert calm.end() == 0, calm.output()
    report = calm.report()
    result = result_of(report, live.examples())
    assert (result.examples, result.outcomes) == (expected.examples, expected.outcomes)
    weights = "weights_sha256"
    assert {**result.hashes, weights: ""} == {**expected.hashes, weights: ""}

    rng = random.Random(6)
    for rank in (1, None, 0):
        disturbed.start("--checkpoint-interval", "0")
        disturbed.wait_for_checkpoints(rng.randrange(1, 3))
        time.sleep(rng.uniform(0, 0.05))
        if rank is None:
            disturbed.terminate()
        else:
            disturbed.kill(rank)
        assert disturbed.end() != 0
        assert (rank is None) == ("has lost the others" not in disturbed.output())
    disturbed.start("--checkpoint-interval", "0", "--until-end", "--flush")
    assert disturbed.end() == 0, disturbed.output()
    again = disturbed.report()
    for name in ("pages", "clicks", "auc", "gauc", "log_loss", *result.hashes):
        assert again[name] == report[name], name
    # Rank 1 keeps nothing, and the copies of the checkpoint that it was sent are gone.
    assert not list((live.folder / "disturbed-1").rglob("*"))
    assert not list(live.folder.glob("prectr-checkpoint-*"))
