"""Both stages in one process: steps of any size, idle partitions, copies of the stores, against the oracle."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from prectr.state.store import Store, StoreOptions
from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.events.partition import partitions_of
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.ordering.released_batch import ReleasedBatch
from prectr.stream.records import Example, encode_record
from prectr.stream.replay.local_tasks import EmbeddedTasks
from prectr.stream.sinks.example_line import NO_SCORES, example_line
from testkit.command import stated_fields
from testkit.oracle.contract import partition_of
from testkit.oracle.oracle import expected_replay
from tests.kit.stages.events import LATENESS, MINUTE, WINDOW, T, click, page
from tests.oracle.world import Disorder, make_world

DISORDER = Disorder(pages=150, users=12, gap=20.0, late=0.1, jump=0.03, nights=1, confirmed_jumps=1, malformed=0.05)


@cache
def world(seed: int) -> list[bytes]:
    return make_world(seed, DISORDER)


def opened(folder: Path, partitions: int) -> EmbeddedTasks:
    return EmbeddedTasks(folder, PipelineConfig(partitions=partitions), LexicalLabeller())


def fed(tasks: EmbeddedTasks, lines: Sequence[bytes], sizes: Random, most: int) -> list[ReleasedBatch]:
    steps, start = [], 0
    while start < len(lines):
        end = start + sizes.randint(1, most)
        steps += tasks.process(lines[start:end], start)
        start = end
    return steps


def put_out(steps: Sequence[ReleasedBatch]) -> list[bytes]:
    return [encode_record(example) for step in steps for example in step.examples]


@pytest.mark.parametrize("partitions", [1, 2, 5])
def test_the_output_does_not_depend_on_the_size_of_the_steps(
    tmp_path: Path, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it equals the output of the oracle."""
    lines, found = world(1), []
    for most, chunk, commit in ((1 << 30, 1 << 30, 1 << 30), (100, 7, 300), (9, 2, 1)):
        monkeypatch.setattr("prectr.stream.replay.local_tasks.CHUNK_LINES", chunk)
        monkeypatch.setattr("prectr.stream.replay.local_tasks.COMMIT_LINES", commit)
        tasks = opened(tmp_path / str(most), partitions)
        steps = fed(tasks, lines, Random(most), most) + tasks.flush()
        rejected = sorted((rejected.offset, rejected.reason) for step in steps for rejected in step.rejected)
        found.append((put_out(steps), rejected, tasks.outcomes))
        watermark = MIN_WATERMARK
        for step in steps:
            assert all(watermark < example.closes_at <= step.watermark for example in step.examples)
            assert step.watermark >= watermark
            watermark = step.watermark
        assert watermark == MAX_WATERMARK
        tasks.close()
    assert found[0] == found[1] == found[2]
    expected = expected_replay(lines, partitions)
    assert [as_written(step_example) for step in steps for step_example in step.examples] == expected["examples"]
    assert sorted(lines[offset] for offset, _ in found[0][1]) == sorted(expected["dead"])


def as_written(example: Example) -> dict[str, Any]:
    """The line of an examples file, as a program reads it."""
    return stated_fields(msgspec.json.decode(msgspec.json.encode(example_line(example, NO_SCORES))))


def test_a_copy_of_the_stores_continues_like_the_run_itself(tmp_path: Path) -> None:
    lines = world(2)
    half = len(lines) // 2
    tasks = opened(tmp_path / "run", 3)
    fed(tasks, lines[:half], Random(0), 50)
    tasks.checkpoint(tmp_path / "copy")
    expected = put_out(tasks.process(lines[half:], half) + tasks.flush())
    outcomes = tasks.outcomes
    tasks.close()
    copy = opened(tmp_path / "copy", 3)
    assert put_out(copy.process(lines[half:], half) + copy.flush()) == expected
    assert copy.outcomes == outcomes
    copy.close()


def test_end_sources_emits_all_closed_pages_and_leaves_pending_pages_open(tmp_path: Path) -> None:
    lines = world(3)
    tasks = opened(tmp_path, 3)
    steps = tasks.process(lines, 0) + tasks.end_sources()
    expected = expected_replay(lines, 3, flush=False)
    assert [as_written(example) for step in steps for example in step.examples] == expected["examples"]
    assert tasks.outcomes.pages.open == expected["outcomes"]["pages"]["open"] > 0
    assert tasks.outcomes.imbalances() == []
    tasks.close()


def quiet_log(pages: int, partitions: int) -> list[bytes]:
    """Pages and clicks of users of partition 0 alone."""
    users = [name for number in range(1000) if partition_of(name := f"user{number}", partitions) == 0][:20]
    lines = []
    for number in range(pages):
        ts, user = T + number * 7000, users[number % len(users)]
        lines += [page(f"r{number}", user, ts, query=f"query {number % 7}"), click(f"r{number}", user, ts + 2000)]
    return lines


@pytest.mark.parametrize("held", [2, 17, 100])
def test_an_idle_partition_with_more_pages_than_memory_ends_with_the_same_result(
    tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, partitions = quiet_log(300, 3), 3
    whole = opened(tmp_path / "memory", partitions)
    expected = put_out(whole.process(lines, 0) + whole.flush())
    whole.close()
    monkeypatch.setattr("prectr.stream.aggregate.operator.MAX_BUFFERED_RECORDS", held)
    monkeypatch.setattr("prectr.stream.replay.local_tasks.COMMIT_LINES", 1)
    tasks = opened(tmp_path / "spilled", partitions)
    assert put_out(fed(tasks, lines[:400], Random(held), 40)) == []
    assert all(task.buffered <= held for task in tasks._aggregates)
    tasks.close()
    tasks = opened(tmp_path / "spilled", partitions)
    rest = tasks.process(lines[400:], 400)
    assert put_out(rest) == []
    last = tasks.flush()
    assert len(last) > 1
    assert put_out(last) == expected
    assert len(expected) == 300
    tasks.checkpoint(tmp_path / "copy")
    tasks.close()
    for task in range(partitions):
        store = Store(tmp_path / "copy" / f"aggregate-{task}", StoreOptions(read_only=True))
        assert not list(store.scan(b"h", b"i"))
        store.close()


def test_a_partition_that_resumes_lets_the_others_advance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prectr.stream.join.event_clock.SETTLING_TURNS", 1)
    lines, partitions = quiet_log(50, 2), 2
    other = next(name for number in range(100) if partition_of(name := f"other{number}", partitions) == 1)
    last = T + 49 * 7000 + 2000
    tasks = opened(tmp_path, partitions)
    assert put_out(tasks.process(lines, 0)) == []
    assert tasks.watermark == MIN_WATERMARK
    (step,) = tasks.process([click("none", other, last - MINUTE)], len(lines))
    assert tasks.watermark == step.watermark == last - MINUTE - LATENESS
    assert [example.ts for example in step.examples] == list(range(T, tasks.watermark - WINDOW + 1, 7000))
    assert tasks.watermarks() == {
        "join": [last - LATENESS, tasks.watermark],
        "aggregate": [tasks.watermark, tasks.watermark],
    }
    tasks.close()


@pytest.mark.parametrize("count", [1, 50, 5000])
def test_keys_land_in_kafkas_partition_few_or_many_at_a_time(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka's own vectors are in test_partition; this one is against plain integers."""
    monkeypatch.setattr("prectr.stream.events.partition._hashes", {})
    keys = [f"{'é' * (number % 7)}{number}" for number in range(count)]
    assert partitions_of(keys, 8) == [partition_of(key, 8) for key in keys]


def test_no_user_stays_in_memory_after_the_last_page_has_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prectr.stream.replay.local_tasks.COMMIT_LINES", 1)
    monkeypatch.setattr("prectr.stream.stages.IS_NATIVE", False)
    lines = [page(f"r{number}", f"u{number}", T + number) for number in range(500)]
    lines.append(click("none", "last", T + 15 * MINUTE))
    tasks = opened(tmp_path, 1)
    tasks.process(lines, 0)
    (task,) = tasks._joins
    assert list(task._users.resident) == ["last"]
    assert len(task._pending_pages) == 0
    assert tasks.outcomes.pages.emitted == 500
    tasks.close()
