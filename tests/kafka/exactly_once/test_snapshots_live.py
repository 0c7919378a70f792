"""Snapshots in the live system: a lost state folder comes back from them, whole or from the one before."""

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prectr.state.snapshots.manifest import SnapshotManifest, decode_manifest
from testkit.command import RunningCommand, prectr, write_log
from tests.kafka.exactly_once.test_misuse import assert_usage_error
from tests.kafka.live import Live, RunResult, replay_log
from tests.kafka.parts import lines_of
from tests.kafka.worlds import adversarial

pytestmark = pytest.mark.usefixtures("broker")

SNAPSHOT_EVERY = 1
PATIENCE = 60.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adversarial(tmp_path_factory.mktemp("world"), pages=600, seed=24)


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return replay_log(tmp_path_factory.mktemp("expected"), world)


def kept(live: Live) -> Path:
    return live.folder / "snapshots"


def flags(live: Live) -> tuple[str | Path, ...]:
    return ("--snapshots", kept(live), "--snapshot-interval", str(SNAPSHOT_EVERY))


def manifests(live: Live) -> dict[str, list[SnapshotManifest]]:
    """By task, the oldest first; those that are whole."""
    found = {}
    for task in kept(live).glob("*"):
        read = [decode_manifest(path.name, path.read_bytes()) for path in sorted(task.glob("manifests/*.json"))]
        found[task.name] = [manifest for manifest in read if manifest is not None]
    return found


def newest(live: Live) -> dict[str, int]:
    """Offset of the newest snapshot of each task that has one."""
    return {task: found[-1].offset for task, found in manifests(live).items() if found}


def until(process: RunningCommand, live: Live, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, live.stderr_of(process)
        assert time.monotonic() < end, live.stderr_of(process)
        time.sleep(0.1)


def at_work(live: Live, world: Path, parts: int) -> RunningCommand:
    """Run a stream worker that processes the log in some parts, with a snapshot of every task in each of them.

    It was not requested to end, so pages are pending.
    """
    live.create()
    process = live.start_stream("1", *flags(live))
    tasks = 2 * live.partitions
    until(process, live, lambda: live.stderr_of(process).count("open at offset") == tasks)
    lines = lines_of(world)
    for number in range(parts):
        time.sleep(SNAPSHOT_EVERY + 0.2)  # so that one is due
        before = newest(live)
        part = lines[number * len(lines) // parts : (number + 1) * len(lines) // parts]
        live.load(write_log(live.folder / f"part-{number}.jsonl", part))
        until(process, live, lambda before=before: _all_are_newer(newest(live), before, tasks))  # type: ignore[misc]
    return process


def _all_are_newer(now: dict[str, int], before: dict[str, int], tasks: int) -> bool:
    return sum(offset > before.get(task, -1) for task, offset in now.items()) == tasks


def lost(live: Live, process: RunningCommand) -> None:
    """Lose the machine of the process with its disk."""
    live.kill(process)
    shutil.rmtree(live.state_dir("1"))


def damage(live: Live) -> dict[str, int]:
    """Corrupt each task's newest snapshot but what it shares with the previous one; returns the latter's offsets."""
    rng = random.Random(3)
    before = {}
    for number, (task, found) in enumerate(sorted(manifests(live).items())):
        *_, last, new = found
        before[task] = last.offset
        own = sorted(file for file, size in new.sizes().items() if size and file not in last.sizes())
        path = kept(live) / task / ("files" if number % 3 else "manifests")
        path /= rng.choice(own) if number % 3 else new.name
        content = bytearray(path.read_bytes())
        if number % 3 == 1:
            content[rng.randrange(len(content))] ^= 1
        else:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
    return before


def to_the_end(live: Live) -> str:
    """Resume to the end with the same flags; returns stderr."""
    return live.wait_for_end(live.start_stream("1", "--until-end", "--flush", *flags(live)))


def test_after_kill_9_and_the_loss_of_the_state_folder_it_goes_on_from_the_snapshots(
    live: Live, world: Path, expected: RunResult
) -> None:
    lost(live, at_work(live, world, 2))
    there = newest(live)
    stderr = to_the_end(live)
    assert len(there) == 2 * live.partitions
    for task, offset in there.items():
        assert f"{task}: restored from the snapshot at offset {offset}\n" in stderr
    assert live.train_and_read("--flush") == expected


def test_where_the_newest_snapshot_is_corrupt_the_previous_one_is_restored_with_a_warning(
    live: Live, world: Path, expected: RunResult
) -> None:
    lost(live, at_work(live, world, 3))
    before = damage(live)
    stderr = to_the_end(live)
    for task, offset in before.items():
        assert f"{task}: restored from the snapshot at offset {offset}\n" in stderr
    warnings = [line for line in stderr.splitlines() if " WARNING " in line and "is corrupt" in line]
    assert len(warnings) == len(before)
    assert live.train_and_read("--flush") == expected


def test_with_the_state_folder_there_no_snapshot_is_brought_back(live: Live, world: Path, expected: RunResult) -> None:
    """The local state is as new as the newest snapshot."""
    process = at_work(live, world, 1)
    live.request_stop(process)
    live.wait_for_end(process)
    assert "restored" not in to_the_end(live)
    assert live.train_and_read("--flush") == expected


def test_without_state_another_configuration_is_refused_before_a_snapshot_is_restored(live: Live, world: Path) -> None:
    lost(live, at_work(live, world, 1))
    again = started(live, *flags(live), PRECTR_ATTRIBUTION_WINDOW="60")
    assert_usage_error(again, "has committed with other settings", "use the settings with which it was made")
    assert again.returncode == 1


def test_a_snapshot_of_another_system_is_refused(live: Live, world: Path) -> None:
    """Groups of another prefix have committed nothing."""
    lost(live, at_work(live, world, 1))
    other = Live(live.bootstrap, f"{live.prefix}other-", live.folder / "other")
    other.create()
    again = started(other, *flags(live), PRECTR_ATTRIBUTION_WINDOW="60")
    assert_usage_error(again, "is of another system: ", "attribution_window is 60.0, was 120.0", "another --snapshots")
    assert again.returncode == 1


@pytest.mark.parametrize(
    ("url", "stderr"),
    [
        ("nowhere://bucket/folder", "nowhere"),
        ("FILE/folder", "FILE"),
        ("/proc/prectr-snapshots", "/proc/prectr-snapshots"),
    ],
)
def test_where_snapshots_cannot_be_kept_nothing_is_read(url: str, stderr: str, live: Live, world: Path) -> None:
    file = live.folder / "a file"
    file.write_bytes(b"")
    live.create()
    live.load(world)
    assert_usage_error(started(live, "--snapshots", url.replace("FILE", str(file))), stderr.replace("FILE", str(file)))
    assert not live.state_dir("1").exists()
    live.stream(1, "--flush")


def started(live: Live, *more: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    given = ["--bootstrap", live.bootstrap, "--topic-prefix", live.prefix, "--group-prefix", live.prefix]
    return prectr("stream", *given, "--state-dir", live.state_dir("1"), "--until-end", *more, **settings)
