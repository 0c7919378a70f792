"""The embedded runner rejects what it cannot continue with, names it, and names a remedy."""

from pathlib import Path

import pytest

from prectr.state.errors import CheckpointError, PrectrError, StateError, UsageError
from prectr.stream.replay.run_checkpoint import list_checkpoints
from testkit.oracle.oracle import expected_replay as brute_force
from tests.kit.stages.disordered import (
    StopReplay,
    disordered_log,
    read_dead_letters,
    split_log,
    stop_at_step,
    write_lines,
)
from tests.kit.stages.replays import ReplayResult, open_replay, read_examples, replay_to_end


def test_a_finished_run_is_not_run_twice_and_takes_nothing_more(log: Path, tmp_path: Path, whole: ReplayResult) -> None:
    out = tmp_path / "out.jsonl"
    replay_to_end([log], tmp_path / "run", examples=out)
    written = out.read_bytes()
    assert replay_to_end([log], tmp_path / "run", examples=out) == whole
    assert out.read_bytes() == written
    more = write_lines(tmp_path / "more.jsonl", disordered_log(1))
    with pytest.raises(UsageError, match=r"the run is finished .* so .*more\.jsonl cannot follow: flush only with"):
        replay_to_end([log, more], tmp_path / "run", examples=out)
    write_lines(log, disordered_log() + disordered_log(1))
    with pytest.raises(UsageError, match=r"log\.jsonl cannot follow"):
        replay_to_end([log], tmp_path / "run", examples=out)


def test_a_file_with_other_content_than_before_is_rejected(tmp_path: Path) -> None:
    lines = disordered_log()
    log = write_lines(tmp_path / "log.jsonl", lines[:150])
    replay_to_end([log], tmp_path / "run", flush=False)
    for changed in (lines[1:], lines[:100], [b"x" + lines[0][1:], *lines[1:]]):
        write_lines(log, changed)
        with pytest.raises(CheckpointError, match=r"log\.jsonl: not the file that was read .* put the old one back"):
            replay_to_end([log], tmp_path / "run")
    write_lines(log, lines[:150])
    replay_to_end([log], tmp_path / "run")


def test_a_file_that_grew_in_the_middle_of_the_log_is_rejected(tmp_path: Path) -> None:
    first, second, third = split_log(tmp_path)
    replay_to_end([first, second], tmp_path / "run", flush=False)
    with first.open("ab") as file:
        file.write(disordered_log(1)[0] + b"\n")
    with pytest.raises(UsageError, match=r"part0\.jsonl: was read before .*part1\.jsonl and has grown since"):
        replay_to_end([first, second, third], tmp_path / "run")


def test_the_last_file_may_not_grow_behind_a_new_one(tmp_path: Path) -> None:
    first, second, _ = split_log(tmp_path)
    replay_to_end([first], tmp_path / "run", flush=False)
    with first.open("ab") as file:
        file.write(disordered_log(1)[0] + b"\n")
    with pytest.raises(UsageError, match=r"part0\.jsonl: was read before .*part1\.jsonl and has grown since"):
        replay_to_end([second, first], tmp_path / "run")


def test_a_file_that_the_run_stopped_in_must_be_named_again(tmp_path: Path) -> None:
    parts = split_log(tmp_path)
    with pytest.raises(StopReplay):
        replay_to_end(parts, tmp_path / "run", checkpoint_interval=0, progress=stop_at_step(2))
    with pytest.raises(UsageError, match=r"part0\.jsonl: the run stopped in the middle of this file: give it again"):
        replay_to_end(parts[1:], tmp_path / "run")


def test_a_file_is_named_once(log: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"log\.jsonl: given twice"):
        replay_to_end([log, tmp_path / "folder" / ".." / "log.jsonl"], tmp_path / "run")


def test_a_missing_file_is_an_error_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(PrectrError, match=r"missing\.jsonl"):
        replay_to_end([tmp_path / "missing.jsonl"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_changed_configuration_is_rejected_with_every_difference(log: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    replay_to_end([log], run_dir, flush=False, named_config={"partitions": "2", "seed": "0", "gone": "x"})
    with pytest.raises(UsageError) as rejected:
        replay_to_end([log], run_dir, named_config={"partitions": "2", "seed": "1", "new": "y"})
    message = str(rejected.value)
    assert "seed is 1, was 0" in message
    assert "new is y, was not set" in message
    assert "gone is not set, was x" in message
    assert "partitions" not in message
    assert "start the run over" in message


def test_an_examples_file_is_written_from_the_first_page_or_not_at_all(log: Path, tmp_path: Path) -> None:
    replay_to_end([log], tmp_path / "without", flush=False)
    with pytest.raises(UsageError, match="started without an examples file"):
        replay_to_end([log], tmp_path / "without", examples=tmp_path / "out.jsonl")
    replay_to_end([log], tmp_path / "with", flush=False, examples=tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match="started with an examples file"):
        replay_to_end([log], tmp_path / "with")


@pytest.mark.parametrize("name", ["out.jsonl", "dead-letters.jsonl"])
def test_a_truncated_output_is_rejected(log: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "run" / "out.jsonl"
    replay_to_end([log], tmp_path / "run", flush=False, examples=out)
    (tmp_path / "run" / name).write_bytes(b"")
    with pytest.raises(PrectrError, match=f"{name}.* has 0 bytes, .* had written [1-9].*start the run over"):
        replay_to_end([log], tmp_path / "run", examples=out)


def test_a_run_folder_in_use_is_rejected(log: Path, tmp_path: Path) -> None:
    replay, _ = open_replay([log], tmp_path / "run")
    with pytest.raises(StateError, match="another process is using it"):
        open_replay([log], tmp_path / "run")
    replay.close()
    replay_to_end([log], tmp_path / "run")


def test_a_rejected_run_releases_its_folder(log: Path, tmp_path: Path) -> None:
    """Even while the error is still referenced."""
    replay_to_end([log], tmp_path / "run", flush=False)
    with pytest.raises(UsageError) as rejected:
        replay_to_end([log], tmp_path / "run", named_config={"partitions": "3"})
    replay_to_end([log], tmp_path / "run")
    assert "partitions" in str(rejected.value)


def test_restart_starts_over_whatever_is_there(log: Path, tmp_path: Path, whole: ReplayResult) -> None:
    other = write_lines(tmp_path / "other.jsonl", disordered_log(1))
    out = tmp_path / "out.jsonl"
    replay_to_end([other], tmp_path / "run", examples=out)
    (list_checkpoints(tmp_path / "run" / "checkpoints")[0] / "checkpoint.json").write_text("damaged")
    assert replay_to_end([log], tmp_path / "run", examples=out, restart=True) == whole
    assert read_examples(out) == brute_force(disordered_log(), 2)["examples"]
    assert read_dead_letters(tmp_path / "run")
