"""Conservation: every line has exactly one outcome, and the bytes of invalid ones are kept unchanged."""

import base64
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testkit.command import prectr, run_replay_command, write_log
from testkit.oracle.oracle import expected_replay
from tests.oracle.world import Disorder, corrupt_line, make_world

SMALL = Disorder(pages=120, users=15, gap=30.0, late=0.1, jump=0.03, nights=1, confirmed_jumps=1, malformed=0.1)


def assert_conserved(outcomes: dict[str, Any], lines: int) -> None:
    """The equations of conservation. (After a replay no merge buffers anything, so emitted = examples.)"""
    pages, clicks = outcomes["pages"], outcomes["clicks"]
    assert pages["in"] == pages["open"] + pages["emitted"] + pages["empty"] + pages["duplicate"] + pages["dead_letter"]
    ends = ("joined", "duplicate", "late", "orphan", "foreign", "waiting", "other_action", "dead_letter")
    assert clicks["in"] == sum(clicks[end] for end in ends)
    assert lines == pages["in"] + clicks["in"] + outcomes["unreadable"]


def mutated(lines: list[bytes], rng: random.Random) -> list[bytes]:
    """These lines, a third of them corrupted: bytes flipped, removed, doubled, swapped between lines, or by kind."""
    return [_damaged(line, lines, rng).replace(b"\n", b" ") for line in lines]


def _damaged(line: bytes, lines: list[bytes], rng: random.Random) -> bytes:
    kind = rng.randrange(15)
    at, to = sorted((rng.randrange(len(line) + 1), rng.randrange(len(line) + 1)))
    if kind == 0:
        return line[:at] + bytes([rng.randrange(256)]) + line[at + 1 :]
    if kind == 1:
        return line[:at] + line[to:]
    if kind == 2:
        return line[:to] + line[at:]
    if kind == 3:
        return line[:at] + rng.choice(lines)[at:]
    if kind == 4 and _is_event(line):
        return corrupt_line(rng, line)
    return line


def _is_event(line: bytes) -> bool:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(event, dict) and event.get("type") in ("impression", "click")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), partitions=st.integers(1, 4), flush=st.booleans())
def test_mutated_events_are_conserved(
    seed: int, partitions: int, flush: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    # The first line says how the file is encoded, and one that says UTF-16 is refused as a whole.
    first, *rest = make_world(seed, SMALL)
    lines = [first, *mutated(rest, random.Random(seed))]
    log = write_log(folder / "events.jsonl", lines)
    flags = ["--partitions", str(partitions), "--no-train", *([] if flush else ["--no-flush"])]
    report = run_replay_command(log, *flags, run_dir=folder / "run")
    assert_conserved(report["outcomes"], len(lines))
    verified = prectr("verify", "--run-dir", folder / "run")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_verify_finds_a_count_that_was_tampered_with(tmp_path: Path) -> None:
    """`verify` fails when the counts do not add up."""
    log = write_log(tmp_path / "events.jsonl", make_world(3, SMALL))
    run_replay_command(log, "--no-train", run_dir=tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    report["outcomes"]["clicks"]["joined"] += 1
    (tmp_path / "run" / "report.json").write_text(json.dumps(report))
    verified = prectr("verify", "--run-dir", tmp_path / "run")
    assert verified.returncode == 1, verified.stdout + verified.stderr
    assert "Traceback" not in verified.stderr


def test_dead_letters_hold_the_bytes_of_each_rejected_line(tmp_path: Path) -> None:
    lines = make_world(5, SMALL)
    log = write_log(tmp_path / "events.jsonl", lines)
    run_replay_command(log, "--no-train", "--partitions", "3", run_dir=tmp_path / "run")
    expected = expected_replay(lines, 3)["dead"]
    assert Counter(dead_bytes(tmp_path / "run")) == Counter(expected)
    assert len(expected) > 20


def dead_bytes(run_dir: Path) -> list[bytes]:
    letters = (run_dir / "dead-letters.jsonl").read_bytes().splitlines()
    return [base64.b64decode(json.loads(letter)["value"]) for letter in letters]
