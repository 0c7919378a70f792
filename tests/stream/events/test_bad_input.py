"""Bad input ends in a dead letter or in an error that names file and location: no traceback, no loss."""

import base64
import gzip
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from testkit.command import (
    PRECTR,
    TIMEOUT,
    environment,
    prectr,
    read_written_examples,
    run_replay_command,
    stated_fields,
    write_log,
)
from testkit.oracle.oracle import expected_replay
from tests.oracle.world import Disorder, make_world

T = 1_700_000_000_000
YEAR = 365 * 86_400_000
QUIET = Disorder(pages=150, users=15, gap=20.0, malformed=0.0, jump=0.0, confirmed_jumps=0)


@pytest.fixture(scope="module")
def world() -> list[bytes]:
    return make_world(77, QUIET)


def page(request: str, user: Any = "u", ts: Any = T, **more: Any) -> dict[str, Any]:
    items = [{"item_id": "a", "relevance": 2}, {"item_id": "b", "relevance": 4}]
    return {"type": "impression", "request_id": request, "user_id": user, "query": "q", "ts": ts, "items": items} | more


def click(request: str, item: str = "a", user: str = "u", ts: int = T + 1, **more: Any) -> dict[str, Any]:
    return {"type": "click", "request_id": request, "user_id": user, "item_id": item, "ts": ts} | more


def line(event: object) -> bytes:
    return json.dumps(event).encode()


def run(tmp_path: Path, lines: list[bytes]) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Replay these lines; return the report, the examples and the dead letters."""
    log = write_log(tmp_path / "events.jsonl", lines)
    out = tmp_path / "examples.jsonl.gz"
    report = run_replay_command(log, "--no-train", "--partitions", "1", "--examples", out, run_dir=tmp_path / "run")
    letters = [json.loads(one) for one in (tmp_path / "run" / "dead-letters.jsonl").read_bytes().splitlines()]
    return report, read_written_examples(out), sorted(letters, key=lambda letter: letter["offset"])


def assert_clear_failure(done: subprocess.CompletedProcess[str], *named: str, code: int = 1) -> None:
    complaint = " ".join(done.stderr.split())
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in named:
        assert word in complaint


# --- dead letters -------------------------------------------------------------------------------------------

BAD_EVENTS = {
    "cut-off JSON": line(page("x"))[:-3],
    "empty line": b"",
    "no object": b"[1, 2]",
    "invalid UTF-8": line(page("x")).replace(b'"q"', b'"\xc3\x28"'),
    "lone surrogate": line(page("x")).replace(b'"q"', b'"\\ud800"'),
    "NaN price": line(page("x", items=[{"item_id": "a", "price": float("nan")}])),
    "infinite price": line(page("x", items=[{"item_id": "a", "price": float("inf")}])),
    "price beyond a float": line(page("x")).replace(b'"relevance": 2', b'"price": 1e999'),
    "time beyond the calendar": line(page("x", ts=10**30)),
    "negative time": line(page("x", ts=-1)),
    "time as text": line(page("x", ts=str(T))),
    "time as a fraction": line(page("x", ts=T + 0.5)),
    "user as a fraction": line(page("x", user=7.5)),
    "no user": line(page("x", user=None)),
    "time in seconds": line(page("x", ts=T // 1000)),
    "10,000 items": line(page("x", items=[{"item_id": "a"}] * 10_000)),
    "relevance 5": line(page("x", items=[{"item_id": "a", "relevance": 5}])),
    "id too long": line(page("é" * 129)),
    "title too long": line(page("x", items=[{"item_id": "a", "title": "t" * 2001}])),
    "unknown type": line({"type": "purchase", "user_id": "u", "ts": T}),
    "deep nesting": b'{"type":"click","x":' + b"[" * 100_000,
    "more than 1 MiB": line(page("x", unknown="x" * (1 << 20))),
    "a flood of bytes": bytes(range(11, 256)) * 40,
}


def test_each_bad_line_is_a_dead_letter_with_its_bytes_and_location(tmp_path: Path) -> None:
    """No valid event before, between or after them is lost. Of a line over 1 MiB the first 1 MiB + 1 bytes are kept."""
    lines = []
    for number, bad in enumerate(BAD_EVENTS.values()):
        lines += [line(page(f"r{number}", ts=T + number)), bad, line(click(f"r{number}", ts=T + number + 1))]
    report, examples, letters = run(tmp_path, lines)
    assert len(examples) == len(BAD_EVENTS)
    assert all([item["click"] for item in example["items"]] == [1, 0] for example in examples)
    assert [base64.b64decode(letter["value"]) for letter in letters] == [
        bad[: (1 << 20) + 1] for bad in BAD_EVENTS.values()
    ]
    assert all(letter["topic"].endswith("events.jsonl") and letter["reason"] for letter in letters)
    offsets = [dead_letter["offset"] for dead_letter in letters]
    assert [later - earlier for earlier, later in pairwise(offsets)] == [3] * (len(offsets) - 1)
    outcomes = report["outcomes"]
    counted = outcomes["unreadable"] + outcomes["pages"]["dead_letter"] + outcomes["clicks"]["dead_letter"]
    assert counted == len(BAD_EVENTS)


def test_same_request_id_with_other_content_is_a_dead_letter(tmp_path: Path) -> None:
    lines = [line(page("r")), line(page("r", query="other")), line(page("r")), line(page("r", user="u2"))]
    report, examples, letters = run(tmp_path, lines)
    assert report["outcomes"]["pages"] == {
        "in": 4,
        "emitted": 2,
        "open": 0,
        "empty": 0,
        "duplicate": 1,
        "dead_letter": 1,
    }
    assert [example["query"] for example in examples] == ["q", "q"]
    assert [base64.b64decode(letter["value"]) for letter in letters] == [lines[1]]


def test_click_before_its_page_is_its_label(tmp_path: Path) -> None:
    _, examples, _ = run(tmp_path, [line(click("r", "b")), line(page("r"))])
    assert [item["click"] for item in examples[0]["items"]] == [0, 1]


@pytest.mark.parametrize("leap", [5 * YEAR, 800 * YEAR, -5 * YEAR, -50 * YEAR])
def test_one_clock_that_jumps_leaves_other_pages_alone(leap: int, tmp_path: Path) -> None:
    """Steady pages of other users before and after; a click right after the jump still joins its page."""
    lines = [line(page("before", "u1", T)), line(page("jump", "bad", T + leap)), line(click("before", user="u1"))]
    lines += [line(page(f"r{n}", f"u{n % 3}", T + n * 60_000)) for n in range(1, 200)]
    report, examples, _ = run(tmp_path, lines)
    steady = [example for example in examples if example["request_id"] != "jump"]
    assert [example["request_id"] for example in steady] == ["before", *(f"r{n}" for n in range(1, 200))]
    assert [item["click"] for item in steady[0]["items"]] == [1, 0]
    # Fifty years back is before 2000, no time of an event at all.
    assert report["outcomes"]["pages"]["dead_letter"] == (0 if leap == -5 * YEAR else 1)


def test_ids_with_newlines_and_nuls_are_preserved(tmp_path: Path) -> None:
    ids = ["a\nb", "a\x00b", "a\x00", "a", '"', "\\", "\u2028", "\uffff", "😀", " ", "../../etc", "a\rb"]
    lines = [line(event) for name in ids for event in (page(name, user=name), click(name, user=name))]
    _, examples, letters = run(tmp_path, lines)
    in_order = sorted(ids, key=str.encode)
    assert [(example["request_id"], example["user_id"]) for example in examples] == [(name, name) for name in in_order]
    assert all(example["items"][0]["click"] == 1 for example in examples)
    assert letters == []


# --- files --------------------------------------------------------------------------------------------------


def parquet_bytes(_: list[bytes]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"type": ["click"] * 5000, "ts": list(range(5000))}), sink)
    return bytes(sink.getvalue())


def joined(lines: list[bytes]) -> bytes:
    return b"".join(one + b"\n" for one in lines)


DAMAGED: dict[str, tuple[str, Callable[[list[bytes]], bytes]]] = {
    "gzip cut off": ("log.jsonl.gz", lambda lines: gzip.compress(joined(lines))[:-1500]),
    "gzip with a wrong byte": ("log.jsonl.gz", lambda lines: flipped(gzip.compress(joined(lines)))),
    "gzip with other bytes behind": ("log.jsonl.gz", lambda lines: gzip.compress(joined(lines)) + b"garbage"),
    "no gzip": ("log.jsonl.gz", lambda lines: b"\0" + joined(lines)),
    "zstd cut off": ("log.jsonl.zst", lambda lines: zstandard.compress(joined(lines))[:-1500]),
    "no zstd": ("log.jsonl.zst", lambda lines: b"\0" + joined(lines)),
    "Parquet cut off": ("log.parquet", lambda lines: parquet_bytes(lines)[:-100]),
    "no Parquet": ("log.parquet", lambda lines: b"\0" + joined(lines)),
}


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_corrupt_file_is_named_with_the_offset(damage: str, world: list[bytes], tmp_path: Path) -> None:
    name, make = DAMAGED[damage]
    (tmp_path / name).write_bytes(make(world))
    done = prectr("replay", tmp_path / name, "--no-train", "--run-dir", tmp_path / "run")
    assert_clear_failure(done, name, "lines")


def test_after_a_truncated_file_is_completed_the_run_resumes(world: list[bytes], tmp_path: Path) -> None:
    """A truncated transfer: once the file is replaced by the complete one, nothing is lost or duplicated."""
    log, out = tmp_path / "log.jsonl.gz", tmp_path / "examples.jsonl.gz"
    flags: list[str | Path] = ["--no-train", "--partitions", "2", "--examples", out]
    whole = gzip.compress(joined(world))
    log.write_bytes(whole[:-3000])
    assert_clear_failure(prectr("replay", log, *flags, "--run-dir", tmp_path / "run"), "log.jsonl.gz", "cut off")
    log.write_bytes(whole)
    report = run_replay_command(log, *flags, run_dir=tmp_path / "run")
    expected = expected_replay(world, 2)
    assert report["outcomes"] == expected["outcomes"]
    assert read_written_examples(out) == expected["examples"]


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.jsonl.gz"])
def test_an_empty_file_is_an_empty_log(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    report = run_replay_command(tmp_path / name, "--no-train", run_dir=tmp_path / "run")
    assert report["outcomes"] == expected_replay([], 1)["outcomes"]
    assert report["pages"] == 0


def test_training_on_an_empty_log_succeeds(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    report = run_replay_command(tmp_path / "empty.jsonl", "--model", "lr", run_dir=tmp_path / "run")
    assert report["impressions"] == 0


def test_empty_files_among_others_change_nothing(world: list[bytes], tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for name, lines in (("0", []), ("1", world[:100]), ("2", []), ("3", world[100:]), ("4", [])):
        write_log(logs / f"{name}.jsonl", lines)
    report = run_replay_command(logs, "--no-train", "--order", "given", run_dir=tmp_path / "run")
    assert report["outcomes"] == expected_replay(world, 4)["outcomes"]


def test_a_last_line_without_line_end_counts(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(line(page("r")) + b"\n" + line(click("r")))
    assert run_replay_command(log, "--no-train", run_dir=tmp_path / "run")["outcomes"]["clicks"]["joined"] == 1


@pytest.mark.parametrize(
    ("name", "code"),
    [("gone.jsonl", 1), ("gone*.jsonl", 1), ("folder", 1), ("notes.txt", 2), ("dangling.jsonl", 1), ("loop.jsonl", 1)],
)
def test_a_missing_log_is_named(name: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("no log")
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    done = prectr("replay", tmp_path / name, "--no-train", "--run-dir", tmp_path / "run")
    assert_clear_failure(done, name, code=code)


def test_no_files_is_wrong_use(tmp_path: Path) -> None:
    assert_clear_failure(prectr("replay", "--run-dir", tmp_path / "run"), "files", code=2)


@pytest.mark.parametrize("hidden", ["logs", "logs/a.jsonl"])
def test_an_unreadable_directory_or_file_is_named(hidden: str, world: list[bytes], tmp_path: Path) -> None:
    """Root can read everything, so as root the command runs without the two capabilities for that."""
    drop = []
    if os.geteuid() == 0:
        drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None or subprocess.run([*drop, "true"], check=False).returncode != 0:
            pytest.skip("runs as root, who may read everything")
    (tmp_path / "logs").mkdir()
    write_log(tmp_path / "logs" / "a.jsonl", world)
    (tmp_path / hidden).chmod(0)
    try:
        done = subprocess.run(
            [*drop, *PRECTR, "replay", str(tmp_path / "logs"), "--no-train", "--run-dir", str(tmp_path / "run")],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=environment(),
            check=False,
        )
    finally:
        (tmp_path / hidden).chmod(0o755)
    assert_clear_failure(done, str(tmp_path / hidden), "ermission denied")


# --- a full disk --------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, if mounting is permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting is not permitted here")
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_under_the_run_folder_is_a_clear_error(tiny_disk: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", make_world(5, Disorder(pages=2000, users=100)))
    done = prectr("replay", log, "--no-train", "--checkpoint-interval", "0", "--run-dir", tiny_disk / "run")
    assert_clear_failure(done, str(tiny_disk / "run"), "No space left")


def test_full_disk_under_the_examples_is_a_clear_error(tiny_disk: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", make_world(5, Disorder(pages=2000, users=100)))
    out = tiny_disk / "examples.jsonl"
    done = prectr("replay", log, "--no-train", "--examples", out, "--run-dir", tmp_path / "run")
    assert_clear_failure(done, str(out), "No space left")


def test_after_a_failed_write_the_same_command_resumes(world: list[bytes], tmp_path: Path) -> None:
    """Files are limited to 24 KiB at first, as on a full disk; without the limit the rerun loses no event."""
    log, out = write_log(tmp_path / "log.jsonl", world), tmp_path / "examples.jsonl"
    command: list[str | Path] = [
        "replay",
        log,
        "--no-train",
        "--partitions",
        "2",
        "--examples",
        out,
        "--checkpoint-interval",
        "0",
    ]
    done = subprocess.run(
        [*PRECTR, *map(str, command), "--run-dir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (24 << 10, resource.RLIM_INFINITY)),
        check=False,
    )
    assert_clear_failure(done, str(tmp_path))
    report = run_replay_command(*command[1:], run_dir=tmp_path / "run")
    expected = expected_replay(world, 2)
    assert report["outcomes"] == expected["outcomes"]
    assert [stated_fields(json.loads(one)) for one in out.read_bytes().splitlines()] == expected["examples"]


@pytest.mark.parametrize("flag", ["--run-dir", "--examples"])
def test_a_file_in_place_of_a_folder_is_named(flag: str, world: list[bytes], tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", world)
    (tmp_path / "in-the-way").write_text("")
    paths = {"--run-dir": tmp_path / "run", "--examples": tmp_path / "examples.jsonl"}
    paths[flag] = tmp_path / "in-the-way" / "below.jsonl"
    flags = [part for name, path in paths.items() for part in (name, path)]
    assert_clear_failure(prectr("replay", log, "--no-train", *flags), str(tmp_path / "in-the-way"))
