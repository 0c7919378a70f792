"""The embedded runner: what it puts out, going on after a crash at any step, further files, and clear refusals."""

import base64
import gc
import gzip
import json
import shutil
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

import msgspec
import pytest

from state.errors import CheckpointError, InputError, PrectrError, StateError, UsageError
from stream.config import PipelineConfig
from stream.cut import cuts, read_cut
from stream.outcomes import Outcomes
from stream.records import decode_example
from stream.replay import Replay
from tests.kit.events import HOUR, T, click, page
from tests.kit.replays import Ran, open_replay, ran, read_examples
from tests.oracle.oracle import replay as brute_force
from tests.oracle.world import Disorder, make_world

DISORDER = Disorder(pages=120, users=12, gap=20.0, late=0.1, jump=0.03, nights=1, confirmed_jumps=1, malformed=0.08)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many steps of a small log; and no waiting for the disk, which no test here takes the power from."""
    monkeypatch.setattr("stream.replay.STEP_LINES", 40)
    monkeypatch.setattr("stream.cut._sync", lambda path: None)


@cache
def world(seed: int = 0) -> list[bytes]:
    return make_world(seed, DISORDER)


def write(path: Path, lines: list[bytes]) -> Path:
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "log.jsonl", world())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The log of `world()` in one undisturbed run, checked against the oracle."""
    folder = tmp_path_factory.mktemp("whole")
    found = ran([write(folder / "log.jsonl", world())], folder / "run", examples=folder / "out.jsonl")
    assert read_examples(folder / "out.jsonl") == brute_force(world(), 2)["examples"]
    return found


class StopHere(Exception):
    """Thrown by a progress bar, between two steps."""


def stopping_at(step: int, seen: Callable[[Replay], None] = lambda replay: None) -> Callable[[Replay], None]:
    steps = iter(range(1, 1 << 30))

    def progress(replay: Replay) -> None:
        seen(replay)
        if next(steps) == step:
            raise StopHere

    return progress


def test_the_digests_are_chains_over_the_examples_and_over_the_aggregates_as_read(whole: Ran) -> None:
    examples = aggregates = bytes(32)
    for encoded in whole.collected:
        examples = sha256(examples + encoded).digest()
        read = decode_example(encoded)
        parts = (read.user_activity, read.user_stats, read.query_stats, read.query_decayed)
        aggregates = sha256(aggregates + msgspec.msgpack.encode(parts)).digest()
    assert (whole.examples, whole.aggregates) == (examples.hex(), aggregates.hex())
    assert whole.clicks == sum(decode_example(encoded).labels.count(1) for encoded in whole.collected) > 0


# --- after a crash -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "cut_every", "name"), [(0, 0.0, "out.jsonl.gz"), (1, 0.0, "out.jsonl"), (2, 1e9, "a.gz")]
)
def test_a_run_stopped_at_random_steps_ends_as_the_undisturbed_one(
    log: Path, tmp_path: Path, whole: Ran, seed: int, cut_every: float, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.replay.STEP_LINES", 12)
    rng = Random(seed)
    out = tmp_path / name
    stops = 0
    while True:
        try:
            progress = stopping_at(rng.randint(1, 3) if stops < 6 else 1 << 30)
            found = ran([log], tmp_path / "run", examples=out, cut_every=cut_every, progress=progress)
        except StopHere:
            stops += 1
            continue
        break
    assert stops == 6
    assert found == whole
    assert read_examples(out) == brute_force(world(), 2)["examples"]


def test_after_every_cut_the_compressed_examples_file_is_whole_up_to_the_length_in_the_cut(
    log: Path, tmp_path: Path
) -> None:
    out, seen = tmp_path / "out.jsonl.gz", []
    expected = brute_force(world(), 2)["examples"]

    def check(replay: Replay) -> None:
        for folder in cuts(tmp_path / "run" / "checkpoints")[:1]:
            cut = read_cut(folder)
            assert cut.examples_bytes is not None
            data = gzip.decompress(out.read_bytes()[: cut.examples_bytes])
            assert [json.loads(line) for line in data.splitlines()] == expected[: cut.tally.pages]
            seen.append(cut.tally.pages)

    ran([log], tmp_path / "run", examples=out, cut_every=0, progress=check)
    assert len(set(seen)) > 5
    assert seen[-1] == len(expected)


def test_a_half_written_cut_is_ignored(log: Path, tmp_path: Path, whole: Ran) -> None:
    with pytest.raises(StopHere):
        ran([log], tmp_path / "run", cut_every=0, progress=stopping_at(4))
    newest = cuts(tmp_path / "run" / "checkpoints")[0]
    half = newest.with_name(f"{int(newest.name) + 1:08d}.tmp")
    shutil.copytree(newest, half)
    (half / "cut.json").write_text("{")
    shutil.rmtree(half / "state" / "sessions-0")
    assert ran([log], tmp_path / "run") == whole


def test_a_damaged_cut_says_what_to_do_and_that_helps(log: Path, tmp_path: Path, whole: Ran) -> None:
    with pytest.raises(StopHere):
        ran([log], tmp_path / "run", cut_every=0, progress=stopping_at(4))
    newest = cuts(tmp_path / "run" / "checkpoints")[0]
    (newest / "cut.json").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match=f"delete the folder .*{newest.name}"):
        ran([log], tmp_path / "run")
    shutil.rmtree(newest)
    assert ran([log], tmp_path / "run") == whole


def test_the_state_of_a_crash_before_the_first_cut_is_dropped(log: Path, tmp_path: Path, whole: Ran) -> None:
    with pytest.raises(StopHere):
        ran([log], tmp_path / "run", progress=stopping_at(5))
    assert cuts(tmp_path / "run" / "checkpoints") == []
    assert (tmp_path / "run" / "state" / "sessions-0").is_dir()
    assert ran([log], tmp_path / "run") == whole


def test_stop_ends_between_two_steps_with_everything_in_a_cut(log: Path, tmp_path: Path, whole: Ran) -> None:
    replay, _ = open_replay([log], tmp_path / "run")
    answers = iter([False, False, True])
    assert replay.run(flush=True, stop=lambda: next(answers)) is False
    place, pages = replay.place, replay.pages
    replay.close()
    assert place == 3 * 40
    replay, _ = open_replay([log], tmp_path / "run")
    assert (replay.place, replay.pages) == (place, pages)
    replay.close()
    assert ran([log], tmp_path / "run") == whole


def test_the_collector_is_on_again_however_a_run_ends(log: Path, tmp_path: Path) -> None:
    ran([log], tmp_path / "run")
    assert gc.isenabled()
    with pytest.raises(StopHere):
        ran([log], tmp_path / "other", progress=stopping_at(1))
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_the_size_of_a_step_changes_nothing(
    log: Path, tmp_path: Path, whole: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lines in (1 << 30, 7):
        monkeypatch.setattr("stream.replay.STEP_LINES", lines)
        assert ran([log], tmp_path / str(lines)) == whole


def test_a_run_says_how_far_it_has_come(log: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    ran([log], tmp_path / "run", progress=lambda replay: seen.append((replay.bytes_read, replay.pages, replay.seconds)))
    assert seen == sorted(seen)
    assert seen[-1][0] == log.stat().st_size
    assert seen[-1][1] == len(brute_force(world(), 2)["examples"])


def test_seconds_add_up_over_all_goes(log: Path, tmp_path: Path) -> None:
    with pytest.raises(StopHere):
        ran([log], tmp_path / "run", cut_every=0, progress=stopping_at(3))
    spent = read_cut(cuts(tmp_path / "run" / "checkpoints")[0]).seconds
    replay, _ = open_replay([log], tmp_path / "run")
    assert replay.seconds > spent > 0
    replay.close()


# --- a quiet partition ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flush", [True, False])
def test_a_quiet_partition_with_more_pages_than_memory_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: bool
) -> None:
    """One user, so that all other partitions are quiet; stopped and taken up on the way."""
    lines = [page(f"r{number}", "u", T + number * 9000, query=f"q{number % 5}") for number in range(400)]
    log = write(tmp_path / "log.jsonl", lines)
    config = PipelineConfig(partitions=3)
    expected = ran([log], tmp_path / "memory", config=config, flush=flush)
    assert expected.pages == 400 if flush else 380 < expected.pages < 400
    monkeypatch.setattr("stream.queries.HELD_RECORDS", 8)
    monkeypatch.setattr("stream.embedded.COMMIT_LINES", 100)
    with pytest.raises(StopHere):
        ran([log], tmp_path / "spilled", config=config, flush=flush, cut_every=0, progress=stopping_at(6))
    assert ran([log], tmp_path / "spilled", config=config, flush=flush) == expected


# --- further files -------------------------------------------------------------------------------------------------


def parts_of(tmp_path: Path, count: int = 3) -> list[Path]:
    lines = world()
    ends = [len(lines) * part // count for part in range(count + 1)]
    return [write(tmp_path / f"part{part}.jsonl", lines[ends[part] : ends[part + 1]]) for part in range(count)]


@pytest.mark.parametrize("cut_every", [0.0, 1e9])
@pytest.mark.parametrize("name_all", [True, False])
def test_without_flush_further_files_go_on_as_one_run(
    tmp_path: Path, whole: Ran, name_all: bool, cut_every: float
) -> None:
    """Whether the files that were read are named again or not, and however often cuts are made."""
    parts, out = parts_of(tmp_path), tmp_path / "out.jsonl.gz"
    for number in (1, 2, 3):
        named = parts[:number] if name_all else parts[number - 1 : number]
        found = ran(named, tmp_path / "run", flush=number == 3, examples=out, cut_every=cut_every)
        expected = brute_force(
            [line for part in parts[:number] for line in part.read_bytes().splitlines()], 2, flush=number == 3
        )
        assert read_examples(out) == expected["examples"]
        assert found.outcomes.impressions.open == expected["outcomes"]["impressions"]["open"]
    assert found == whole


def test_without_flush_the_same_command_again_says_the_same(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    first = ran([log], tmp_path / "run", flush=False, examples=out)
    written = out.read_bytes()
    assert ran([log], tmp_path / "run", flush=False, examples=out) == first
    assert out.read_bytes() == written


def test_without_flush_then_with_it_ends_as_one_run(log: Path, tmp_path: Path, whole: Ran) -> None:
    ran([log], tmp_path / "run", flush=False)
    assert ran([log], tmp_path / "run") == whole


def test_a_file_that_grew_is_read_on_from_where_it_ended(tmp_path: Path, whole: Ran) -> None:
    lines = world()
    log = write(tmp_path / "log.jsonl", lines[:150])
    ran([log], tmp_path / "run", flush=False)
    write(log, lines)
    assert ran([log], tmp_path / "run") == whole


def test_an_empty_log_is_a_run_too(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.jsonl", [])
    found = ran([empty], tmp_path / "run", flush=False)
    assert (found.pages, found.outcomes, found.examples) == (0, Outcomes(), "00" * 32)
    assert [file.done for file in read_cut(cuts(tmp_path / "run" / "checkpoints")[0]).files] == [True]
    rest = write(tmp_path / "rest.jsonl", world())
    assert ran([rest], tmp_path / "run").pages > 0


def test_empty_files_between_others_change_nothing(tmp_path: Path, whole: Ran) -> None:
    parts = parts_of(tmp_path)
    empty = [write(tmp_path / f"empty{number}.jsonl", []) for number in range(4)]
    named = [empty[0], parts[0], empty[1], parts[1], parts[2], empty[2], empty[3]]
    assert ran(named, tmp_path / "run") == whole


# --- refusals ------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_run_twice_and_takes_nothing_more(log: Path, tmp_path: Path, whole: Ran) -> None:
    out = tmp_path / "out.jsonl"
    ran([log], tmp_path / "run", examples=out)
    written = out.read_bytes()
    assert ran([log], tmp_path / "run", examples=out) == whole
    assert out.read_bytes() == written
    more = write(tmp_path / "more.jsonl", world(1))
    with pytest.raises(UsageError, match=r"the run is finished .* so .*more\.jsonl cannot follow: use --no-flush"):
        ran([log, more], tmp_path / "run", examples=out)
    write(log, world() + world(1))
    with pytest.raises(UsageError, match=r"log\.jsonl cannot follow"):
        ran([log], tmp_path / "run", examples=out)


def test_a_file_that_is_another_now_is_refused(tmp_path: Path) -> None:
    lines = world()
    log = write(tmp_path / "log.jsonl", lines[:150])
    ran([log], tmp_path / "run", flush=False)
    for changed in (lines[1:], lines[:100], [b"x" + lines[0][1:], *lines[1:]]):
        write(log, changed)
        with pytest.raises(CheckpointError, match=r"log\.jsonl: is another file now .* put the old one back"):
            ran([log], tmp_path / "run")
    write(log, lines[:150])
    ran([log], tmp_path / "run")


def test_a_file_that_grew_in_the_middle_of_the_log_is_refused(tmp_path: Path) -> None:
    first, second, third = parts_of(tmp_path)
    ran([first, second], tmp_path / "run", flush=False)
    with first.open("ab") as file:
        file.write(world(1)[0] + b"\n")
    with pytest.raises(UsageError, match=r"part0\.jsonl: was read before .*part1\.jsonl and has grown since"):
        ran([first, second, third], tmp_path / "run")


def test_the_last_file_may_not_grow_behind_a_new_one(tmp_path: Path) -> None:
    first, second, _ = parts_of(tmp_path)
    ran([first], tmp_path / "run", flush=False)
    with first.open("ab") as file:
        file.write(world(1)[0] + b"\n")
    with pytest.raises(UsageError, match=r"part0\.jsonl: was read before .*part1\.jsonl and has grown since"):
        ran([second, first], tmp_path / "run")


def test_a_file_that_the_run_stopped_in_must_be_named_again(tmp_path: Path) -> None:
    parts = parts_of(tmp_path)
    with pytest.raises(StopHere):
        ran(parts, tmp_path / "run", cut_every=0, progress=stopping_at(2))
    with pytest.raises(UsageError, match=r"part0\.jsonl: the run stopped in the middle of it: name it again"):
        ran(parts[1:], tmp_path / "run")


def test_a_file_is_named_once(log: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"log\.jsonl: named twice"):
        ran([log, tmp_path / "folder" / ".." / "log.jsonl"], tmp_path / "run")


def test_a_missing_file_is_an_error_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(PrectrError, match=r"missing\.jsonl"):
        ran([tmp_path / "missing.jsonl"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_changed_configuration_is_refused_with_every_difference(log: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    ran([log], run_dir, flush=False, named={"partitions": "2", "seed": "0", "gone": "x"})
    with pytest.raises(UsageError) as refused:
        ran([log], run_dir, named={"partitions": "2", "seed": "1", "new": "y"})
    said = str(refused.value)
    assert "seed is 1, was 0" in said
    assert "new is y, was not set" in said
    assert "gone is not set, was x" in said
    assert "partitions" not in said
    assert "--restart" in said


def test_an_examples_file_is_written_from_the_first_page_or_not_at_all(log: Path, tmp_path: Path) -> None:
    ran([log], tmp_path / "without", flush=False)
    with pytest.raises(UsageError, match="begun without --examples"):
        ran([log], tmp_path / "without", examples=tmp_path / "out.jsonl")
    ran([log], tmp_path / "with", flush=False, examples=tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match="begun with --examples"):
        ran([log], tmp_path / "with")


@pytest.mark.parametrize("name", ["out.jsonl", "dead-letters.jsonl"])
def test_an_output_that_was_cut_short_is_refused(log: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "run" / "out.jsonl"
    ran([log], tmp_path / "run", flush=False, examples=out)
    (tmp_path / "run" / name).write_bytes(b"")
    with pytest.raises(PrectrError, match=f"{name}.* has 0 bytes, .* had written [1-9].*--restart"):
        ran([log], tmp_path / "run", examples=out)


def test_a_run_folder_in_use_is_refused(log: Path, tmp_path: Path) -> None:
    replay, _ = open_replay([log], tmp_path / "run")
    with pytest.raises(StateError, match="another process is working in it"):
        open_replay([log], tmp_path / "run")
    replay.close()
    ran([log], tmp_path / "run")


def test_a_refused_run_folder_is_free_again(log: Path, tmp_path: Path) -> None:
    """Also while the error of the refusal is still held."""
    ran([log], tmp_path / "run", flush=False)
    with pytest.raises(UsageError) as refused:
        ran([log], tmp_path / "run", named={"partitions": "3"})
    ran([log], tmp_path / "run")
    assert "partitions" in str(refused.value)


def test_restart_starts_over_whatever_is_there(log: Path, tmp_path: Path, whole: Ran) -> None:
    other = write(tmp_path / "other.jsonl", world(1))
    out = tmp_path / "out.jsonl"
    ran([other], tmp_path / "run", examples=out)
    (cuts(tmp_path / "run" / "checkpoints")[0] / "cut.json").write_text("damaged")
    assert ran([log], tmp_path / "run", examples=out, restart=True) == whole
    assert read_examples(out) == brute_force(world(), 2)["examples"]
    assert letters(tmp_path / "run")


# --- bad input -----------------------------------------------------------------------------------------------------


def letters(run_dir: Path) -> list[dict[str, str | int]]:
    with (run_dir / "dead-letters.jsonl").open("rb") as lines:
        return [json.loads(line) for line in lines]


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
