"""The files of a log: merged by time, known wherever they are, and read on where they ended."""

import shutil
from pathlib import Path

import pytest

from prectr.state.errors import CheckpointError, UsageError
from prectr.stream.config import PipelineConfig
from tests.kit.stages.disordered import StopReplay, disordered_log, split_log, stop_at_step, write_lines
from tests.kit.stages.events import T, click, page
from tests.kit.stages.replays import ReplayResult, open_replay, replay_to_end

ONE = PipelineConfig(partitions=1)


def small_log(pages: int = 60, gap: int = 30_000) -> list[bytes]:
    """Each page has a click 5 s after it; all of them join."""
    lines = []
    for number in range(pages):
        ts, user = T + number * gap, f"u{number % 12}"
        lines += [page(f"r{number}", user, ts), click(f"r{number}", user, ts + 5000)]
    return lines


@pytest.fixture
def whole(tmp_path: Path) -> ReplayResult:
    return replay_to_end([write_lines(tmp_path / "whole.jsonl", small_log())], tmp_path / "whole", config=ONE)


def split_by_kind(folder: Path) -> list[Path]:
    lines = small_log()
    return [write_lines(folder / "pages.jsonl", lines[::2]), write_lines(folder / "clicks.jsonl", lines[1::2])]


@pytest.mark.parametrize("stopped", [False, True])
def test_pages_and_clicks_in_two_files_join_as_in_one(
    tmp_path: Path, whole: ReplayResult, stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prectr.stream.replay.runner.STEP_LINES", 16)
    files = split_by_kind(tmp_path)
    for step in (1, 3) if stopped else ():
        with pytest.raises(StopReplay):
            replay_to_end(
                files, tmp_path / "run", config=ONE, order="time", checkpoint_interval=0, progress=stop_at_step(step)
            )
    found = replay_to_end(files, tmp_path / "run", config=ONE, order="time")
    assert found == whole
    assert found.outcomes.clicks.joined == 60


def test_as_given_clicks_after_all_pages_are_late(tmp_path: Path) -> None:
    found = replay_to_end(split_by_kind(tmp_path), tmp_path / "run", config=ONE, order="given")
    assert found.outcomes.clicks.joined < 10 < found.outcomes.clicks.late


@pytest.mark.parametrize("parts", [3, 13])
def test_a_topic_dumped_to_one_file_a_partition_is_the_log(tmp_path: Path, whole: ReplayResult, parts: int) -> None:
    lines = small_log()
    folder = tmp_path / "dump"
    folder.mkdir()
    for part in range(parts):
        write_lines(folder / f"part-{part}.jsonl", lines[part::parts])
    assert replay_to_end([folder], tmp_path / "run", config=ONE, order="time") == whole


def test_a_run_is_continued_in_the_order_in_which_it_was_started(tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", small_log())
    replay_to_end([log], tmp_path / "run", flush=False, order="time")
    with pytest.raises(UsageError, match="order is given, was time"):
        replay_to_end([log], tmp_path / "run", order="given")


# --- the same file in another place --------------------------------------------------------------------------------


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_log_that_was_moved_is_read_on_and_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool, grown: bool
) -> None:
    monkeypatch.setattr("prectr.stream.replay.runner.STEP_LINES", 40)
    folder = tmp_path / "log"
    folder.mkdir()
    lines = small_log(180, 120_000)
    for part in range(3):
        write_lines(folder / f"{part}.jsonl", lines[part * 120 : part * 120 + 120])
    if grown:
        write_lines(folder / "2.jsonl", lines[240:300])
    expected = replay_to_end([write_lines(tmp_path / "whole.jsonl", lines)], tmp_path / "whole")
    if stopped:
        with pytest.raises(StopReplay):
            replay_to_end(
                [folder], tmp_path / "run", order="time", checkpoint_interval=0, progress=stop_at_step(5), flush=False
            )
    else:
        replay_to_end([folder], tmp_path / "run", order="time", flush=False)
    moved = folder.rename(tmp_path / "mounted elsewhere")
    write_lines(moved / "2.jsonl", lines[240:])
    (moved / "1.jsonl").rename(moved / "other name.jsonl")
    assert replay_to_end([moved], tmp_path / "run", order="time") == expected


def test_small_files_that_were_moved_and_have_grown_are_known(tmp_path: Path) -> None:
    """Shorter than what the beginning of a file is known by."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    lines = [[b"a%d" % n] for n in range(5)]
    for n in range(5):
        write_lines(old / f"{n}.jsonl", lines[n])
    replay_to_end([old], tmp_path / "run", order="time", flush=False)
    shutil.move(old, new)
    for n in range(5):
        write_lines(new / f"{n}.jsonl", [*lines[n], page(f"r{n}", "u", T + n)])
    found = replay_to_end([new], tmp_path / "run", order="time")
    assert found.dead_letters == {"not_json": 5}
    assert found.outcomes.pages.emitted == 5


def test_a_log_that_was_rotated_is_read_on(tmp_path: Path) -> None:
    lines = small_log()
    log = write_lines(tmp_path / "log.jsonl", lines[:60])
    expected = replay_to_end([write_lines(tmp_path / "whole.jsonl", lines)], tmp_path / "whole")
    replay_to_end([log], tmp_path / "run", order="time", flush=False)
    log.rename(tmp_path / "log.1.jsonl")
    with (tmp_path / "log.1.jsonl").open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines[60:80]))
    write_lines(log, lines[80:])
    assert replay_to_end([tmp_path / "log.1.jsonl", log], tmp_path / "run", order="time") == expected


def test_another_file_in_the_place_of_one_that_was_read_is_an_error(tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", small_log())
    replay_to_end([log], tmp_path / "run", flush=False)
    write_lines(log, small_log()[2:])
    with pytest.raises(CheckpointError, match=r"log\.jsonl: not the file that was read"):
        replay_to_end([log], tmp_path / "run")


# --- growing files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 30])
def test_a_last_line_that_was_half_written_is_read_when_it_is_whole(
    tmp_path: Path, whole: ReplayResult, cut: int
) -> None:
    log = tmp_path / "log.jsonl"
    content = b"".join(line + b"\n" for line in small_log())
    for end in (len(content) // 2, len(content) - cut):
        log.write_bytes(content[:end])
        replay_to_end([log], tmp_path / "run", config=ONE, flush=False)
    log.write_bytes(content)
    assert replay_to_end([log], tmp_path / "run", config=ONE) == whole


def test_a_last_line_without_a_line_feed_is_read_by_a_flush(tmp_path: Path, whole: ReplayResult) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(small_log()))
    before = replay_to_end([log], tmp_path / "run", config=ONE, flush=False)
    assert before.outcomes.clicks.received == 59
    assert replay_to_end([log], tmp_path / "run", config=ONE) == whole


def test_merged_files_may_all_grow(tmp_path: Path, whole: ReplayResult) -> None:
    lines = small_log()
    files = [tmp_path / f"{part}.jsonl" for part in range(3)]
    for end in (60, 90, 120):
        for part, file in enumerate(files):
            write_lines(file, lines[:end][part::3])
        found = replay_to_end(files, tmp_path / "run", config=ONE, order="time", flush=end == 120)
    assert found == whole


def test_disorder_is_measured_by_file_and_over_all(tmp_path: Path) -> None:
    files = split_by_kind(tmp_path)
    for order, behind in (("time", 0), ("given", 59)):
        replay, _ = open_replay(files, tmp_path / order, config=ONE, order=order)  # type: ignore[arg-type]
        replay.run(flush=True)
        assert (replay.disorder.events, replay.disorder.behind) == (120, behind)
        assert [(file.disorder.events, file.disorder.behind) for file in replay.files] == [(60, 0), (60, 0)]
        replay.close()
    disordered = split_log(tmp_path)
    replay, _ = open_replay(disordered, tmp_path / "disordered", order="given")
    replay.run(flush=True)
    assert sum(file.disorder.events for file in replay.files) == replay.disorder.events > 0.8 * len(disordered_log())
    replay.close()
