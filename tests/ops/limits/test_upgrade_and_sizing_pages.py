"""The figures of docs/sizing.md and the formats of docs/upgrade.md are those of the program."""

import re
from pathlib import Path

import pytest

from prectr.model.text.encoder import artifact
from prectr.model.training import checkpoint
from prectr.ops.limits.needs import STAGES, monitor_needs, process_needs, replay_needs, stream_needs
from prectr.state.snapshots.manifest import MANIFEST_FORMAT
from prectr.state.store import StoreOptions
from prectr.stream.ordering.frames import FRAME_FORMAT
from prectr.stream.replay.run_checkpoint import CHECKPOINT_FORMAT

DOCS = Path(__file__).parents[3] / "docs"
SIZING, UPGRADE = ((DOCS / f"{name}.md").read_text() for name in ("sizing", "upgrade"))


def test_open_files_and_threads_by_partitions() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", SIZING, re.MULTILINE)
    assert len(rows) == 4
    for partitions, *figures in rows:
        tasks = STAGES * int(partitions)
        needs = stream_needs(tasks, {})
        expected = (tasks, needs.open_files, needs.most_open_files, needs.threads)
        assert tuple(int(figure.replace(",", "")) for figure in figures) == expected


def test_the_formulas_are_those_of_the_program() -> None:
    open_files, per_task = map(int, re.findall(r"needed at the start = (\d+) \+ (\d+) · T", SIZING)[0])
    (most,) = map(int, re.findall(r"at most = needed at the start \+ (\d+) · T", SIZING))
    (threads,) = re.findall(r"Threads: (\d+) \+ (\d+) · \*T\*", SIZING)
    for tasks in (1, 100):
        needs = stream_needs(tasks, {})
        assert needs.open_files == open_files + per_task * tasks
        assert needs.most_open_files == needs.open_files + most * tasks
        assert needs.threads == int(threads[0]) + int(threads[1]) * tasks
    of_replay, of_trainer, least, greatest = re.findall(
        r"A replay needs (\d+) in place of 16 for each task, a trainer (\d+), a monitor (\d+) to ([\d,]+)", SIZING
    )[0]
    assert replay_needs(9, {}).open_files - replay_needs(8, {}).open_files == int(of_replay)
    assert process_needs({}).open_files == int(of_trainer)
    assert f"{monitor_needs({}).open_files}-{monitor_needs({}).most_open_files:,}" == f"{least}-{greatest}"
    cache, buffers = map(int, re.findall(r"block cache of (\d+) MiB and two write buffers of (\d+) MiB", SIZING)[0])
    assert (StoreOptions().block_cache, StoreOptions().write_buffer) == (cache << 20, buffers << 20)
    assert f"{cache + 2 * buffers} MiB · *T*" in SIZING


@pytest.mark.parametrize(
    ("what", "version"),
    [
        ("frames in `joined-pages` and `training-examples`", FRAME_FORMAT),
        ("snapshots", MANIFEST_FORMAT),
        ("checkpoints of a run", CHECKPOINT_FORMAT),
        ("checkpoint of a model", checkpoint.FORMAT),
        ("text encoders", artifact.FORMAT),
    ],
)
def test_formats_of_the_upgrade_page(what: str, version: int) -> None:
    assert f"\n| {what} | {version} |" in UPGRADE
