"""After kill -9 the same command resumes, and ends with the same examples, aggregates and weights, bit for bit."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from testkit.command import PRECTR, environment, prectr, read_written_examples, run_replay_command, write_log
from tests.oracle.world import Disorder, make_world

HASHES = ("examples_sha256", "aggregates_sha256", "weights_sha256")
WORLD = Disorder(pages=2500, users=150, gap=8.0, jump=0.01)
FILES = 40
"""Number of files of the log: the end of each fifth ends a step of the runner, after which a checkpoint is possible."""


class Uninterrupted(NamedTuple):
    """A run that was not killed."""

    report: dict[str, Any]
    examples: list[dict[str, Any]]
    startup: float
    """Seconds until its first output."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    lines = make_world(42, WORLD)
    step = len(lines) // FILES + 1
    for number in range(FILES):
        write_log(folder / f"part-{number:02}.jsonl", lines[number * step : (number + 1) * step])
    return folder


def replay_flags(model: str, out: Path) -> list[str | Path]:
    return ["--model", model, "--partitions", "3", "--order", "given", "--examples", out]


def start(log: Path, run_dir: Path, *flags: str | Path) -> subprocess.Popen[bytes]:
    command = [*PRECTR, "replay", str(log), "--run-dir", str(run_dir), *map(str, flags)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())


def uninterrupted(model: str, log: Path, folder: Path) -> Uninterrupted:
    out = folder / "uninterrupted.jsonl.gz"
    run_dir = folder / "uninterrupted"
    began = time.monotonic()
    process = start(log, run_dir, *replay_flags(model, out))
    while process.poll() is None and not (run_dir.is_dir() and any(run_dir.iterdir())):
        time.sleep(0.02)
    startup = time.monotonic() - began
    assert process.wait() == 0
    report = json.loads((run_dir / "report.json").read_bytes())
    return Uninterrupted(report, read_written_examples(out), startup)


def checkpoints(run_dir: Path) -> list[str]:
    return sorted(checkpoint.name for checkpoint in run_dir.glob("checkpoints/*"))


def killed_at_random(process: subprocess.Popen[bytes], run_dir: Path, startup: float, rng: random.Random) -> bool:
    """Kill it while it starts (one in five), or some time after it began a checkpoint; False if it ended before."""
    if rng.random() < 0.2:
        time.sleep(startup * rng.random())
    else:
        before = checkpoints(run_dir)
        while process.poll() is None and checkpoints(run_dir) == before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.6))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.wait()
    return True


@pytest.mark.parametrize(("model", "kills"), [("wide-deep", 14), ("lr", 6)])
def test_killed_anywhere_ends_the_same(model: str, kills: int, log: Path, tmp_path: Path) -> None:
    """20 kills in total; if a run ends before that, another one is started."""
    rng = random.Random(kills)
    whole = uninterrupted(model, log, tmp_path)
    left, round_number = kills, 0
    while left > 0:
        round_number += 1
        run_dir = tmp_path / f"killed-{round_number}"
        out = tmp_path / f"killed-{round_number}.jsonl.gz"
        flags = [*replay_flags(model, out), "--checkpoint-interval", "0"]
        while left > 0 and killed_at_random(process := start(log, run_dir, *flags), run_dir, whole.startup, rng):
            left -= 1
        assert process.wait() in (0, -signal.SIGKILL)
        report = run_replay_command(log, *flags, run_dir=run_dir)
        assert {name: report[name] for name in HASHES} == {name: whole.report[name] for name in HASHES}
        assert report["outcomes"] == whole.report["outcomes"]
        assert read_written_examples(out) == whole.examples
        for metric in ("auc", "gauc", "log_loss", "impressions", "clicks"):
            assert report[metric] == whole.report[metric]


def test_further_files_after_no_flush_equal_one_run_over_all(tmp_path: Path) -> None:
    world = make_world(8, Disorder(pages=800, users=80, gap=10.0))
    first, second = (
        write_log(tmp_path / f"{name}.jsonl", part)
        for name, part in (("a", world[: len(world) // 2]), ("b", world[len(world) // 2 :]))
    )
    parted, whole = tmp_path / "parted.jsonl.gz", tmp_path / "whole.jsonl.gz"
    flags = ["--model", "lr", "--partitions", "3", "--order", "given"]
    run_replay_command(first, *flags, "--no-flush", "--examples", parted, run_dir=tmp_path / "parted")
    got = run_replay_command(first, second, *flags, "--examples", parted, run_dir=tmp_path / "parted")
    expected = run_replay_command(first, second, *flags, "--examples", whole, run_dir=tmp_path / "whole")
    assert {name: got[name] for name in HASHES} == {name: expected[name] for name in HASHES}
    assert got["outcomes"] == expected["outcomes"]
    assert read_written_examples(parted) == read_written_examples(whole)


def test_a_finished_run_is_not_run_twice(tmp_path: Path) -> None:
    log = write_log(tmp_path / "events.jsonl", make_world(9, Disorder(pages=200, users=20, gap=20.0)))
    out = tmp_path / "examples.jsonl.gz"
    first = run_replay_command(log, "--model", "lr", "--examples", out, run_dir=tmp_path / "run")
    again = run_replay_command(log, "--model", "lr", "--examples", out, run_dir=tmp_path / "run")
    assert again["outcomes"] == first["outcomes"]
    assert {name: again[name] for name in HASHES} == {name: first[name] for name in HASHES}


@pytest.mark.parametrize(
    ("flags", "settings", "named"),
    [
        (["--partitions", "2"], {}, "partitions"),
        (["--model", "dnn"], {}, "model"),
        ([], {"PRECTR_ATTRIBUTION_WINDOW": "600"}, "attribution_window"),
        ([], {"PRECTR_BATCH_PAGES": "8"}, "batch_pages"),
    ],
)
def test_a_changed_configuration_is_rejected_by_name(
    flags: list[str], settings: dict[str, str], named: str, finished: Path, log_of_the_finished: Path
) -> None:
    given = ["--partitions", "3", "--model", "lr", *flags]
    done = prectr("replay", log_of_the_finished, "--run-dir", finished, *given, **settings)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def log_of_the_finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = make_world(10, Disorder(pages=150, users=20, gap=20.0))
    return write_log(tmp_path_factory.mktemp("finished") / "events.jsonl", world)


@pytest.fixture(scope="module")
def finished(log_of_the_finished: Path) -> Path:
    """An incomplete run with 3 partitions and `lr`."""
    run_dir = log_of_the_finished.parent / "run"
    run_replay_command(log_of_the_finished, "--partitions", "3", "--model", "lr", "--no-flush", run_dir=run_dir)
    return run_dir


def test_restart_starts_over(tmp_path: Path) -> None:
    log = write_log(tmp_path / "events.jsonl", make_world(12, Disorder(pages=150, users=20, gap=20.0)))
    run_replay_command(log, "--partitions", "2", "--model", "lr", "--no-flush", run_dir=tmp_path / "run")
    over = run_replay_command(log, "--partitions", "4", "--model", "lr", "--restart", run_dir=tmp_path / "run")
    fresh = run_replay_command(log, "--partitions", "4", "--model", "lr", run_dir=tmp_path / "fresh")
    assert {name: over[name] for name in HASHES} == {name: fresh[name] for name in HASHES}
    assert over["outcomes"] == fresh["outcomes"]
