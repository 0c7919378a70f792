"""The embedded runner on bad input: dead letters name file and line, and a repaired file is resumed."""

import base64
from pathlib import Path

import pytest

from prectr.state.errors import InputError
from prectr.stream.config import PipelineConfig
from prectr.stream.replay.run_checkpoint import list_checkpoints, read_checkpoint
from testkit.oracle.oracle import expected_replay as brute_force
from tests.kit.stages.disordered import StopReplay, disordered_log, read_dead_letters, stop_at_step, write_lines
from tests.kit.stages.events import HOUR, T, click, page
from tests.kit.stages.replays import ReplayResult, read_examples, replay_to_end


@pytest.fixture(params=["straight", "stopped", "file by file"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_dead_letters_name_the_file_and_the_line(tmp_path: Path, way: str) -> None:
    """Across files, some of them empty; also for a future event that expires three files later."""
    bad = page("bad", "bad", T + 99 * HOUR)
    contents: list[list[bytes]] = [
        [click("none", user, T) for user in "uv" * 32],  # the partition settles on a time
        [page("r1", "u", T), b"not json", bad, b""],
        [b"{}", *(click("none", "u", T + number) for number in range(50)), b'{"type": "click"}'],
        [],
        [page("r1", "u", T, items=("other",)), click("none", "u", T + 2 * HOUR // 2), b"\xff"],
        [click("none", "v", T + 2 * HOUR - 1)],
    ]
    files = [write_lines(tmp_path / f"{number}.jsonl", lines) for number, lines in enumerate(contents)]
    run_dir, config = tmp_path / "run", PipelineConfig(partitions=1)
    if way == "file by file":
        for file in files[:-1]:
            replay_to_end([file], run_dir, config=config, flush=False)
    elif way == "stopped":
        for _ in range(3):
            with pytest.raises(StopReplay):
                replay_to_end(files, run_dir, config=config, checkpoint_interval=0, progress=stop_at_step(1))
    found = replay_to_end(files, run_dir, config=config)
    expected = {
        (1, 1, "not_json"): b"not json",
        (1, 2, "future_timestamp"): bad,
        (1, 3, "blank"): b"",
        (2, 0, "unknown_type"): b"{}",
        (2, 51, "missing_field"): b'{"type": "click"}',
        (4, 0, "conflicting_page"): contents[4][0],
        (4, 2, "not_utf8"): b"\xff",
    }
    seen = {
        (Path(str(letter["topic"])).stem, letter["offset"], letter["reason"]): base64.b64decode(str(letter["value"]))
        for letter in read_dead_letters(run_dir)
    }
    assert seen == {(str(file), line, reason): value for (file, line, reason), value in expected.items()}
    assert sum(found.dead_letters.values()) == len(read_dead_letters(run_dir)) == len(expected)
    assert all(count == 1 for count in found.dead_letters.values())


def test_a_truncated_gzip_keeps_what_was_readable_and_resumes_when_fixed(tmp_path: Path, whole: ReplayResult) -> None:
    log = write_lines(tmp_path / "log.jsonl.gz", disordered_log())
    data = log.read_bytes()
    log.write_bytes(data[: len(data) // 2])
    out = tmp_path / "out.jsonl.gz"
    with pytest.raises(InputError, match=r"log\.jsonl\.gz: .* lines before it have been read and are kept"):
        replay_to_end([log], tmp_path / "run", examples=out)
    read = read_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[0])
    assert 0 < read.lines_read < len(disordered_log())
    log.write_bytes(data)
    assert replay_to_end([log], tmp_path / "run", examples=out) == whole
    assert read_examples(out) == brute_force(disordered_log(), 2)["examples"]
