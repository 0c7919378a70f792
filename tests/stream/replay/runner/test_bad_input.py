"""The embedded runner on bad input: dead letters name file and line, and what was cut off goes on when mended."""

import base64
from pathlib import Path

import pytest

from prectr.state.errors import InputError
from prectr.stream.config import PipelineConfig
from prectr.stream.replay.run_checkpoint import cuts, read_cut
from tests.kit.stages.disordered import StopHere, letters, stopping_at, world, write
from tests.kit.stages.events import HOUR, T, click, page
from tests.kit.stages.replays import Ran, ran, read_examples
from tests.oracle.oracle import replay as brute_force


@pytest.fixture(params=["straight", "stopped", "file by file"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_dead_letters_name_the_file_and_the_line(tmp_path: Path, way: str) -> None:
    """Across files, empty ones among them; also of a suspect that is given up three files later."""
    bad = page("bad", "bad", T + 99 * HOUR)
    contents: list[list[bytes]] = [
        [],
        [page("r1", "u", T), b"not json", bad, b""],
        [b"{}", *(click("none", "u", T + number) for number in range(50)), b'{"type": "click"}'],
        [],
        [page("r1", "u", T, items=("other",)), click("none", "u", T + 2 * HOUR // 2), b"\xff"],
        [click("none", "v", T + 2 * HOUR - 1)],
    ]
    files = [write(tmp_path / f"{number}.jsonl", lines) for number, lines in enumerate(contents)]
    run_dir, config = tmp_path / "run", PipelineConfig(partitions=1)
    if way == "file by file":
        for file in files[:-1]:
            ran([file], run_dir, config=config, flush=False)
    elif way == "stopped":
        for _ in range(3):
            with pytest.raises(StopHere):
                ran(files, run_dir, config=config, cut_every=0, progress=stopping_at(1))
    found = ran(files, run_dir, config=config)
    expected = {
        (1, 1, "not_json"): b"not json",
        (1, 2, "unconfirmed_clock"): bad,
        (1, 3, "blank"): b"",
        (2, 0, "unknown_type"): b"{}",
        (2, 51, "missing_field"): b'{"type": "click"}',
        (4, 0, "conflicting_page"): contents[4][0],
        (4, 2, "not_utf8"): b"\xff",
    }
    seen = {
        (Path(str(letter["topic"])).stem, letter["offset"], letter["reason"]): base64.b64decode(str(letter["value"]))
        for letter in letters(run_dir)
    }
    assert seen == {(str(file), line, reason): value for (file, line, reason), value in expected.items()}
    assert sum(found.dead_letters.values()) == len(letters(run_dir)) == len(expected)
    assert all(count == 1 for count in found.dead_letters.values())


def test_a_cut_off_gzip_keeps_what_could_be_read_and_goes_on_when_it_is_mended(tmp_path: Path, whole: Ran) -> None:
    log = write(tmp_path / "log.jsonl.gz", world())
    data = log.read_bytes()
    log.write_bytes(data[: len(data) // 2])
    out = tmp_path / "out.jsonl.gz"
    with pytest.raises(InputError, match=r"log\.jsonl\.gz: .* lines in front of it are read and kept"):
        ran([log], tmp_path / "run", examples=out)
    read = read_cut(cuts(tmp_path / "run" / "checkpoints")[0])
    assert 0 < read.place < len(world())
    log.write_bytes(data)
    assert ran([log], tmp_path / "run", examples=out) == whole
    assert read_examples(out) == brute_force(world(), 2)["examples"]
