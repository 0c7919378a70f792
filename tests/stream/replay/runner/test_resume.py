"""The embedded runner: its output, resuming after a crash at any step, and further files."""

import gc
import gzip
import json
import shutil
from hashlib import sha256
from pathlib import Path
from random import Random

import msgspec
import pytest

from prectr.state.errors import CheckpointError
from prectr.stream.config import PipelineConfig
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.records import decode_example
from prectr.stream.replay.run_checkpoint import list_checkpoints, read_checkpoint
from prectr.stream.replay.runner import Replay
from testkit.command import stated_fields
from testkit.oracle.contract import partition_of
from testkit.oracle.oracle import expected_replay as brute_force
from tests.kit.stages.disordered import StopReplay, disordered_log, split_log, stop_at_step, write_lines
from tests.kit.stages.events import T, page
from tests.kit.stages.replays import ReplayResult, open_replay, read_examples, replay_to_end


def test_the_digests_are_chains_over_the_examples_and_over_the_aggregates_as_read(whole: ReplayResult) -> None:
    examples = aggregates = bytes(32)
    for encoded in whole.emitted:
        examples = sha256(examples + encoded).digest()
        read = decode_example(encoded)
        parts = (read.user_activity, read.user_stats, read.query_stats, read.query_decayed)
        aggregates = sha256(aggregates + msgspec.msgpack.encode(parts)).digest()
    assert (whole.examples, whole.aggregates) == (examples.hex(), aggregates.hex())
    assert whole.clicks == sum(decode_example(encoded).labels.count(1) for encoded in whole.emitted) > 0


# --- after a crash -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "checkpoint_interval", "name"), [(0, 0.0, "out.jsonl.gz"), (1, 0.0, "out.jsonl"), (2, 1e9, "out.jsonl.gz")]
)
def test_a_run_stopped_at_random_steps_equals_the_uninterrupted_one(
    log: Path,
    tmp_path: Path,
    whole: ReplayResult,
    seed: int,
    checkpoint_interval: float,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prectr.stream.replay.runner.STEP_LINES", 12)
    rng = Random(seed)
    out = tmp_path / name
    stops = 0
    while True:
        try:
            progress = stop_at_step(rng.randint(1, 3) if stops < 6 else 1 << 30)
            found = replay_to_end(
                [log], tmp_path / "run", examples=out, checkpoint_interval=checkpoint_interval, progress=progress
            )
        except StopReplay:
            stops += 1
            continue
        break
    assert stops == 6
    assert found == whole
    assert read_examples(out) == brute_force(disordered_log(), 2)["examples"]


def test_after_every_checkpoint_the_compressed_examples_file_is_complete_up_to_the_checkpointed_length(
    log: Path, tmp_path: Path
) -> None:
    out, seen = tmp_path / "out.jsonl.gz", []
    expected = brute_force(disordered_log(), 2)["examples"]

    def check(replay: Replay) -> None:
        for folder in list_checkpoints(tmp_path / "run" / "checkpoints")[:1]:
            checkpoint = read_checkpoint(folder)
            assert checkpoint.examples_bytes is not None
            data = gzip.decompress(out.read_bytes()[: checkpoint.examples_bytes])
            assert [stated_fields(json.loads(line)) for line in data.splitlines()] == expected[
                : checkpoint.digest.pages
            ]
            seen.append(checkpoint.digest.pages)

    replay_to_end([log], tmp_path / "run", examples=out, checkpoint_interval=0, progress=check)
    assert len(set(seen)) >= 5
    assert seen[-1] == len(expected)


def test_a_half_written_checkpoint_is_ignored(log: Path, tmp_path: Path, whole: ReplayResult) -> None:
    with pytest.raises(StopReplay):
        replay_to_end([log], tmp_path / "run", checkpoint_interval=0, progress=stop_at_step(4))
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    half = newest.with_name(f"{int(newest.name) + 1:08d}.tmp")
    shutil.copytree(newest, half)
    (half / "checkpoint.json").write_text("{")
    shutil.rmtree(half / "state" / "join-0")
    assert replay_to_end([log], tmp_path / "run") == whole


def test_the_remedy_of_a_corrupt_checkpoint_works(log: Path, tmp_path: Path, whole: ReplayResult) -> None:
    with pytest.raises(StopReplay):
        replay_to_end([log], tmp_path / "run", checkpoint_interval=0, progress=stop_at_step(4))
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    (newest / "checkpoint.json").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match=f"delete the folder .*{newest.name}"):
        replay_to_end([log], tmp_path / "run")
    shutil.rmtree(newest)
    assert replay_to_end([log], tmp_path / "run") == whole


def test_the_state_of_a_crash_before_the_first_checkpoint_is_dropped(
    log: Path, tmp_path: Path, whole: ReplayResult
) -> None:
    with pytest.raises(StopReplay):
        replay_to_end([log], tmp_path / "run", progress=stop_at_step(5))
    assert list_checkpoints(tmp_path / "run" / "checkpoints") == []
    assert (tmp_path / "run" / "state" / "join-0").is_dir()
    assert replay_to_end([log], tmp_path / "run") == whole


def test_stop_ends_between_two_steps_with_everything_in_a_checkpoint(
    log: Path, tmp_path: Path, whole: ReplayResult
) -> None:
    replay, _ = open_replay([log], tmp_path / "run")
    answers = iter([False, False, True])
    assert replay.run(flush=True, stop=lambda: next(answers)) is False
    lines_read, pages = replay.lines_read, replay.pages
    replay.close()
    assert lines_read == 3 * 40
    replay, _ = open_replay([log], tmp_path / "run")
    assert (replay.lines_read, replay.pages) == (lines_read, pages)
    replay.close()
    assert replay_to_end([log], tmp_path / "run") == whole


def test_the_collector_is_on_again_however_a_run_ends(log: Path, tmp_path: Path) -> None:
    replay_to_end([log], tmp_path / "run")
    assert gc.isenabled()
    with pytest.raises(StopReplay):
        replay_to_end([log], tmp_path / "other", progress=stop_at_step(1))
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_the_size_of_a_step_changes_nothing(
    log: Path, tmp_path: Path, whole: ReplayResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lines in (1 << 30, 7):
        monkeypatch.setattr("prectr.stream.replay.runner.STEP_LINES", lines)
        assert replay_to_end([log], tmp_path / str(lines)) == whole


def test_a_run_reports_its_progress(log: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    replay_to_end(
        [log], tmp_path / "run", progress=lambda replay: seen.append((replay.bytes_read, replay.pages, replay.seconds))
    )
    assert seen == sorted(seen)
    assert seen[-1][0] == log.stat().st_size
    assert seen[-1][1] == len(brute_force(disordered_log(), 2)["examples"])


def test_seconds_add_up_over_all_attempts(log: Path, tmp_path: Path) -> None:
    with pytest.raises(StopReplay):
        replay_to_end([log], tmp_path / "run", checkpoint_interval=0, progress=stop_at_step(3))
    spent = read_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[0]).seconds
    replay, _ = open_replay([log], tmp_path / "run")
    assert replay.seconds > spent > 0
    replay.close()


# --- a quiet partition ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flush", [True, False])
def test_an_idle_partition_with_more_pages_than_memory_gives_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: bool
) -> None:
    """Users of one partition, so that all others are idle; stopped and resumed on the way."""
    users = [user for user in "uvwxyz" if partition_of(user, 3) == partition_of("u", 3)]
    lines = [
        page(f"r{number}", users[number % len(users)], T + number * 9000, query=f"q{number % 5}")
        for number in range(400)
    ]
    log = write_lines(tmp_path / "log.jsonl", lines)
    config = PipelineConfig(partitions=3)
    expected = replay_to_end([log], tmp_path / "memory", config=config, flush=flush)
    assert expected.pages == 400 if flush else 380 < expected.pages < 400
    monkeypatch.setattr("prectr.stream.aggregate.operator.MAX_BUFFERED_RECORDS", 8)
    monkeypatch.setattr("prectr.stream.replay.local_tasks.COMMIT_LINES", 100)
    with pytest.raises(StopReplay):
        replay_to_end(
            [log], tmp_path / "spilled", config=config, flush=flush, checkpoint_interval=0, progress=stop_at_step(6)
        )
    assert replay_to_end([log], tmp_path / "spilled", config=config, flush=flush) == expected


# --- further files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint_interval", [0.0, 1e9])
@pytest.mark.parametrize("name_all", [True, False])
def test_without_flush_further_files_continue_as_one_run(
    tmp_path: Path, whole: ReplayResult, name_all: bool, checkpoint_interval: float
) -> None:
    """Whether or not the files already read are given again, and for any checkpoint interval."""
    parts, out = split_log(tmp_path), tmp_path / "out.jsonl.gz"
    for number in (1, 2, 3):
        named = parts[:number] if name_all else parts[number - 1 : number]
        found = replay_to_end(
            named, tmp_path / "run", flush=number == 3, examples=out, checkpoint_interval=checkpoint_interval
        )
        expected = brute_force(
            [line for part in parts[:number] for line in part.read_bytes().splitlines()], 2, flush=number == 3
        )
        assert read_examples(out) == expected["examples"]
        assert found.outcomes.pages.open == expected["outcomes"]["pages"]["open"]
    assert found == whole


def test_without_flush_the_same_command_again_gives_the_same_result(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    first = replay_to_end([log], tmp_path / "run", flush=False, examples=out)
    written = out.read_bytes()
    assert replay_to_end([log], tmp_path / "run", flush=False, examples=out) == first
    assert out.read_bytes() == written


def test_without_flush_then_with_it_ends_as_one_run(log: Path, tmp_path: Path, whole: ReplayResult) -> None:
    replay_to_end([log], tmp_path / "run", flush=False)
    assert replay_to_end([log], tmp_path / "run") == whole


def test_a_file_that_grew_is_read_on_from_where_it_ended(tmp_path: Path, whole: ReplayResult) -> None:
    lines = disordered_log()
    log = write_lines(tmp_path / "log.jsonl", lines[:150])
    replay_to_end([log], tmp_path / "run", flush=False)
    write_lines(log, lines)
    assert replay_to_end([log], tmp_path / "run") == whole


def test_an_empty_log_is_a_valid_run(tmp_path: Path) -> None:
    empty = write_lines(tmp_path / "empty.jsonl", [])
    found = replay_to_end([empty], tmp_path / "run", flush=False)
    assert (found.pages, found.outcomes, found.examples) == (0, Outcomes(), "00" * 32)
    assert [file.done for file in read_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[0]).files] == [
        True
    ]
    rest = write_lines(tmp_path / "rest.jsonl", disordered_log())
    assert replay_to_end([rest], tmp_path / "run").pages > 0


def test_empty_files_between_others_change_nothing(tmp_path: Path, whole: ReplayResult) -> None:
    parts = split_log(tmp_path)
    empty = [write_lines(tmp_path / f"empty{number}.jsonl", []) for number in range(4)]
    named = [empty[0], parts[0], empty[1], parts[1], parts[2], empty[2], empty[3]]
    assert replay_to_end(named, tmp_path / "run") == whole
