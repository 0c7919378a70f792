"""`prectr replay` against the oracle: labels, snapshots, outcomes and order are equal."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testkit.command import read_written_examples, run_replay_command, write_log
from testkit.oracle.oracle import expected_replay
from tests.oracle.world import Disorder, make_world

SMALL = Disorder(pages=300, users=40, gap=20.0, late=0.1, jump=0.03, nights=2, confirmed_jumps=1, malformed=0.05)


@pytest.fixture(scope="module")
def world() -> list[bytes]:
    return make_world(2013)


@pytest.fixture(scope="module")
def log(world: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("world") / "events.jsonl", world)


def assert_equal_to_oracle(
    log: Path, world: list[bytes], folder: Path, partitions: int, *more: str, flush: bool = True
) -> dict[str, Any]:
    out = folder / "examples.jsonl.gz"
    flags: list[str | Path] = [
        "--partitions",
        str(partitions),
        "--no-train",
        "--examples",
        out,
        *([] if flush else ["--no-flush"]),
        *more,
    ]
    report = run_replay_command(log, *flags, run_dir=folder / "run")
    expected = expected_replay(world, partitions, flush=flush)
    found = read_written_examples(out)
    for index, (theirs, ours) in enumerate(zip(found, expected["examples"], strict=False)):
        assert theirs == ours, f"example {index}"
    assert len(found) == len(expected["examples"])
    assert report["outcomes"] == expected["outcomes"]
    return expected


def test_the_world_holds_all_kinds_of_disorder(world: list[bytes]) -> None:
    """Guards the tests below: a world without disorder would prove nothing."""
    outcomes = expected_replay(world, 3)["outcomes"]
    assert outcomes["pages"]["emitted"] >= 20_000
    assert min(outcomes["pages"][kind] for kind in ("duplicate", "dead_letter")) > 100
    kinds = ("joined", "duplicate", "late", "orphan", "foreign", "dead_letter")
    assert min(outcomes["clicks"][kind] for kind in kinds) > 100
    assert outcomes["unreadable"] > 100


@pytest.mark.parametrize("partitions", [1, 3, 8])
def test_twenty_thousand_pages_of_disorder(partitions: int, log: Path, world: list[bytes], tmp_path: Path) -> None:
    assert_equal_to_oracle(log, world, tmp_path, partitions)


def test_without_flush_open_pages_stay_open(tmp_path: Path) -> None:
    world = make_world(7, Disorder(pages=3000, users=200))
    log = write_log(tmp_path / "events.jsonl", world)
    expected = assert_equal_to_oracle(log, world, tmp_path, 3, flush=False)
    assert expected["outcomes"]["pages"]["open"] > 0


def test_all_visitors_under_one_id(tmp_path: Path) -> None:
    """As of a log that has one id for everybody who is not logged in: many pages are open at once, with many clicks."""
    world = make_world(11, Disorder(pages=1500, users=1, gap=0.2, nights=0, confirmed_jumps=0))
    log = write_log(tmp_path / "events.jsonl", world)
    expected = assert_equal_to_oracle(log, world, tmp_path, 3)
    assert len(expected["examples"]) > 1000
    assert max(len(snapshot["history"]) for snapshot in expected_replay(world, 3, snapshots=True)["snapshots"]) > 40


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    partitions=st.integers(1, 5),
    flush=st.booleans(),
    checkpoint_interval=st.sampled_from("0 9"),
)
def test_small_random_worlds(
    seed: int, partitions: int, flush: bool, checkpoint_interval: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("small")
    world = make_world(seed, SMALL)
    assert_equal_to_oracle(write_log(folder / "events.jsonl", world), world, folder, partitions, flush=flush)


def steady_log(days: int, *others: dict[str, Any]) -> list[bytes]:
    """A page of other users every 50 minutes, so that no clock jumps, and these events among them."""
    beat = 50 * 60_000
    events = [_page(f"beat {n}", f"beat {n % 2}", n * beat, "beat") for n in range(days * 86_400_000 // beat + 2)]
    return [json.dumps(event).encode() for event in sorted([*events, *others], key=lambda event: event["ts"])]


def _page(request: str, user: str, after: int, query: str) -> dict[str, Any]:
    items = [{"item_id": "a", "relevance": 3}]
    ids = {"type": "impression", "request_id": request, "user_id": user, "query": query}
    return ids | {"ts": 1_700_000_000_000 + after, "items": items}


def test_an_entry_is_absent_one_millisecond_after_its_time_to_live(tmp_path: Path) -> None:
    """A user expires 90 days after the last page or joined click, a query after the last close time."""
    ttl, window = 90 * 86_400_000, 120_000
    world = steady_log(
        91,
        *(_page(f"{user}1", user, 0, f"of {user}") for user in "abcd"),
        _page("a2", "a", ttl, "new"),
        _page("b2", "b", ttl + 1, "newer"),
        _page("c2", "x", window + ttl, "of c"),
        _page("d2", "y", window + ttl + 1, "of d"),
    )
    assert_equal_to_oracle(write_log(tmp_path / "events.jsonl", world), world, tmp_path, 1)
    examples = {page["request_id"]: page for page in read_written_examples(tmp_path / "examples.jsonl.gz")}
    assert [examples[request]["user_stats"]["3"] for request in ("a2", "b2")] == [[1, 0], [0, 0]]
    assert [examples[request]["query_stats"]["3"] for request in ("c2", "d2")] == [[1, 0], [0, 0]]


def test_the_time_to_live_holds_after_a_quiet_night(tmp_path: Path) -> None:
    """The page was a future event and was confirmed: its user's entry expires all the same."""
    night = 100 * 86_400_000
    world = [
        json.dumps(event).encode()
        for event in (
            _page("b1", "b", 0, "qb"),
            _page("c1", "c", 600_000, "qc"),
            _page("b2", "b", night, "qb"),
            {"type": "click", "request_id": "b2", "user_id": "b", "item_id": "a", "ts": night + 1},
            _page("c2", "c", night + 1, "qc"),
            _page("b3", "b", night + 300_000, "qb"),
        )
    ]
    assert_equal_to_oracle(write_log(tmp_path / "events.jsonl", world), world, tmp_path, 1)


def test_examples_do_not_depend_on_how_the_log_is_split_into_files(tmp_path: Path) -> None:
    world = make_world(11, SMALL)
    folder = tmp_path / "parts"
    folder.mkdir()
    rng = random.Random(11)
    split_points = sorted(rng.sample(range(len(world)), 3))
    for name, part in enumerate(zip([0, *split_points], [*split_points, len(world)], strict=True)):
        write_log(folder / f"part-{name}.jsonl", world[slice(*part)])
    assert_equal_to_oracle(folder, world, tmp_path, 2, "--order", "given")


def test_missing_relevance_is_filled_in_the_same_for_the_same_query_and_title(tmp_path: Path) -> None:
    """A labelled item gets one level from 1 to 4, and the aggregates count it at that level."""
    titles = ["red shoes for men", "red hat", "garden hose", "red shoes"]
    items = [{"item_id": f"i{n}", "title": title} for n, title in enumerate(titles)]
    page = {"type": "impression", "query": "Red  shoes", "items": items}
    log = [page | {"request_id": f"r{n}", "user_id": f"u{n}", "ts": 10**12 + n * 500_000} for n in range(3)]
    out = tmp_path / "examples.jsonl.gz"
    path = write_log(tmp_path / "events.jsonl", [json.dumps(event).encode() for event in log])
    run_replay_command(path, "--no-train", "--examples", out, run_dir=tmp_path / "run")
    first, second, third = read_written_examples(out)
    levels = [item["relevance"] for item in first["items"]]
    assert all(level in (1, 2, 3, 4) for level in levels)
    assert levels == [item["relevance"] for item in third["items"]]
    assert levels[3] == max(levels) > levels[2] == min(levels)
    assert second["query_stats"] == {str(level): [levels.count(level), 0] for level in (1, 2, 3, 4)}
