"""Rejected records: equal ones in a row are one dead letter with a count; kinds have a first example and its place."""

import base64
import json
from pathlib import Path

import zstandard

from prectr.stream.replay.rejections import RejectionKind
from prectr.stream.replay.run_checkpoint import list_checkpoints, read_checkpoint
from prectr.stream.replay.run_dead_letters import export_run_dead_letters, find_run_dead_letter, summarise_run
from prectr.stream.replay.verify import verify
from tests.kit.stages.disordered import read_dead_letters
from tests.kit.stages.events import T, page
from tests.kit.stages.replays import open_replay, replay_to_end


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def test_many_blank_lines_are_one_dead_letter_that_counts_them(tmp_path: Path) -> None:
    """A few bytes of zstd that are 300,000 lines."""
    log = tmp_path / "log.jsonl.zst"
    log.write_bytes(zstandard.compress(page("r", "u", T) + b"\n" + b"\n" * 300_000 + b"{}\n"))
    found = replay_to_end([log], tmp_path / "run")
    assert found.outcomes.unreadable == 300_001
    assert found.dead_letters == {"blank": 300_000, "unknown_type": 1}
    letters = read_dead_letters(tmp_path / "run")
    assert [(letter["reason"], letter["offset"], letter.get("count", 1)) for letter in letters] == [
        ("blank", 1, 300_000),
        ("unknown_type", 300_001, 1),
    ]
    assert all(check.holds for check in verify(tmp_path / "run"))


def test_only_equal_records_on_consecutive_lines_are_taken_together(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [b"x", b"x", b"y", b"x", page("r", "u", T), b"x"])
    second = write(tmp_path / "b.jsonl", [b"x"])
    replay_to_end([first, second], tmp_path / "run")
    letters = read_dead_letters(tmp_path / "run")
    assert [
        (
            Path(str(letter["topic"])).name,
            letter["offset"],
            base64.b64decode(str(letter["value"])),
            letter.get("count", 1),
        )
        for letter in letters
    ] == [
        ("a.jsonl", 0, b"x", 2),
        ("a.jsonl", 2, b"y", 1),
        ("a.jsonl", 3, b"x", 1),
        ("a.jsonl", 5, b"x", 1),
        ("b.jsonl", 0, b"x", 1),
    ]


def test_kinds_have_a_count_the_first_example_and_its_place_also_when_resumed(tmp_path: Path) -> None:
    bad = [b'{"type": "click", "ts": %d}' % (T + n) for n in range(5)]
    first = write(tmp_path / "a.jsonl", [page("r", "u", T), bad[0], b"\xff\x1b[31m" + b"z" * 500, bad[1], bad[2]])
    second = write(tmp_path / "b.jsonl", bad[3:])
    replay_to_end([first], tmp_path / "run", flush=False)
    replay, _ = open_replay([first, second], tmp_path / "run")
    replay.run(flush=True)
    kinds = replay.rejections
    replay.close()
    assert kinds[0] == RejectionKind("missing_field", kinds[0].detail, 5, str(first), 2, bad[0].decode())
    assert "`request_id`" in kinds[0].detail
    assert (kinds[1].reason, kinds[1].count, kinds[1].line) == ("not_utf8", 1, 3)
    assert kinds[1].example == "\\xff\x1b[31m" + "z" * 194
    assert read_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[0]).rejections == kinds


def test_the_dead_letters_of_a_run_are_counted_found_and_exported(tmp_path: Path) -> None:
    log = write(tmp_path / "a.jsonl", [b"", b"", b'{"type": "click"}', b"\xff", page("r", "u", T)])
    run_dir = tmp_path / "run"
    replay_to_end([log], run_dir)
    summary = summarise_run(run_dir, lambda read, size: None, limit=2)
    assert summary.dead_letters == 4
    assert [(count.reason, count.dead_letters) for count in summary.counts] == [
        ("blank", 2),
        ("missing_field", 1),
        ("not_utf8", 1),
    ]
    assert [(letter.dead_letter, letter.reason, letter.line, letter.records) for letter in summary.newest] == [
        (3, "not_utf8", 4, 1),
        (2, "missing_field", 3, 1),
    ]
    assert find_run_dead_letter(run_dir, "2").value == b'{"type": "click"}'
    out = tmp_path / "out.jsonl"
    assert export_run_dead_letters(run_dir, out, lambda read, size: None) == 3
    exported = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert [(letter["dead_letter"], letter.get("event"), letter.get("text")) for letter in exported] == [
        ("1", None, ""),
        ("2", {"type": "click"}, None),
        ("3", None, None),
    ]
    # A letter that is still being written is not read.
    with (run_dir / "dead-letters.jsonl").open("ab") as file:
        file.write(b'{"value": "')
    assert summarise_run(run_dir, lambda read, size: None).dead_letters == 4
