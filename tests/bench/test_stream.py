"""`bench.stream`: the oracle agrees with the stages and a hand calculation, and rejects wrong output."""

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from bench.stream.driver import Run
from bench.stream.oracle import (
    HALF_LIVES_MS,
    CheckResult,
    CommittedRecord,
    ExpectedOutput,
    check_records,
    expected_output,
)
from bench.stream.page import Result, sections
from bench.stream.workload import Workload, pages_for, scale_workload, stage_settings
from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.events.partition import partitions_of
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.ordering.frames import SourceProgress, encode_frames
from prectr.stream.records import Example, encode_record
from prectr.stream.replay.local_tasks import EmbeddedTasks
from tests.kit.stages.events import SECOND, T, click
from tests.kit.stages.events import page as result_page

WINDOW = 60 * SECOND
PARTITIONS = 2


def workload(path: Path, lines: list[bytes], pages: int) -> Workload:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return Workload(path, pages, len(lines), path.stat().st_size, WINDOW)


@pytest.fixture
def log(tmp_path: Path) -> Workload:
    """120 pages in four minutes, with clicks of all kinds, in order of time."""
    chance = random.Random(5)
    events: list[tuple[int, bytes]] = []
    for number in range(120):
        ts = T + number * 2 * SECOND
        request, user = f"r{number:03d}", f"u{chance.randrange(12)}"
        items = [f"i{chance.randrange(30)}-{position}" for position in range(4)]
        levels = [chance.randint(1, 4) for _ in items]
        query = f"query {chance.randrange(5)}"
        positions = {item: index + 1 for index, item in enumerate(items)}
        shown = result_page(request, user, ts, query=query, items=items, levels=levels)
        events.append((ts, with_positions(shown, positions)))
        for item in items:
            if chance.random() < 0.3:
                kind = chance.random()
                at = ts + (chance.randint(1, 50) if kind > 0.2 else 61 + chance.randrange(60)) * SECOND
                line = click(request if kind > 0.1 else f"x{number}", user, at, item)
                events += [(at, line)] * (2 if kind > 0.9 else 1)
    events.sort(key=lambda event: event[0])
    return workload(tmp_path / "log.jsonl", [line for _, line in events], 120)


def with_positions(line: bytes, positions: dict[str, int]) -> bytes:
    event = msgspec.json.decode(line)
    for item in event["items"]:
        item["position"] = positions[item["item_id"]]
    return msgspec.json.encode(event)


def examples_of(log: Workload, folder: Path) -> tuple[list[Example], Outcomes]:
    """Output of the stages."""
    config = PipelineConfig(partitions=PARTITIONS, attribution_window=WINDOW / 1000, allowed_lateness=0.5)
    tasks = EmbeddedTasks(folder / "tasks", config, LexicalLabeller())
    lines = log.path.read_bytes().splitlines()
    steps = [*tasks.process(lines, 0), *tasks.flush()]
    outcomes = tasks.outcomes
    tasks.close()
    return [example for step in steps for example in step.examples], outcomes


def frames_of(examples: list[Example], outcomes: Outcomes, *, each: int = 7) -> list[CommittedRecord]:
    """The examples as records of a topic, `each` examples per frame."""
    records = []
    for partition in range(PARTITIONS):
        numbers = partitions_of([example.query for example in examples], PARTITIONS)
        here = [example for example, number in zip(examples, numbers, strict=True) if number == partition]
        for number, start in enumerate(range(0, len(here), each)):
            values = [encode_record(example) for example in here[start : start + each]]
            (frame,) = encode_frames(partition, number, values, SourceProgress(watermark=T, outcomes={0: outcomes}))
            records.append(CommittedRecord(partition, number, 0, frame))
    return records


class Found:
    """Actual and expected output of a log."""

    def __init__(self, log: Workload, folder: Path) -> None:
        self.due: ExpectedOutput = expected_output(log)
        self.examples, self.outcomes = examples_of(log, folder)

    def check(self, examples: list[Example] | None = None, outcomes: Outcomes | None = None) -> CheckResult:
        frames = frames_of(self.examples if examples is None else examples, outcomes or self.outcomes)
        return check_records(frames, PARTITIONS, self.due)


@pytest.fixture
def found(log: Workload, tmp_path: Path) -> Found:
    return Found(log, tmp_path)


def test_oracle_and_stages_agree(found: Found) -> None:
    check = found.check()
    assert (check.verdict, check.pages) == ("ok", 120)
    clicks = found.due.outcomes.clicks
    assert min(clicks.joined, clicks.late, clicks.orphan, clicks.duplicate) > 0
    assert any(any(page.query_stats) and any(page.user_stats) for page in found.due.pages.values())


def test_oracle_by_hand(tmp_path: Path) -> None:
    later = T + WINDOW + HALF_LIVES_MS[-1]
    lines = [
        result_page("r1", "u1", T, items=("a", "b")),
        click("r1", "u1", T + 1, "b"),
        click("r1", "u1", T + 1, "b"),
        click("none", "u1", T + 2, "b"),
        result_page("r2", "u1", T + 3, items=("a",)),
        click("r1", "u1", T + WINDOW + 1, "a"),
        result_page("r3", "u1", later, items=("a",)),
    ]
    due = expected_output(workload(tmp_path / "log.jsonl", lines, 3))
    first, second, third = due.pages["r1"], due.pages["r2"], due.pages["r3"]
    assert (first.labels, first.levels, first.user_activity) == (b"\0\1", b"\4\1", 0)
    assert (second.user_activity, second.user_stats, second.query_stats) == (1, (0,) * 8, (0,) * 8)
    assert third.user_stats == third.query_stats == (1, 0, 0, 2, 1, 0, 0, 0)
    # Seven days after the first page's close; the second closed 3 ms later, which is nothing.
    for sums, left in zip(third.query_decayed, (2.0**-28, 2.0**-7, 0.5), strict=True):
        assert sums == pytest.approx((left, 0, 0, 2 * left, left, 0, 0, 0), rel=1e-6)
    clicks = due.outcomes.clicks
    assert (clicks.received, clicks.joined, clicks.duplicate, clicks.orphan, clicks.late) == (4, 1, 1, 1, 1)


def changed(index: int, **fields: object) -> Callable[[list[Example]], list[Example]]:
    def change(examples: list[Example]) -> list[Example]:
        one = msgspec.structs.replace(examples[index], **fields)
        return [*examples[:index], one, *examples[index + 1 :]]

    return change


def nudged(examples: list[Example]) -> list[Example]:
    index = next(index for index, example in enumerate(examples) if example.query_decayed[1][0] > 1)
    quick, (first, *others), slow = examples[index].query_decayed
    return changed(index, query_decayed=(quick, (first * (1 + 1e-8), *others), slow))(examples)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda examples: examples[1:], "1 missing"),
        (lambda examples: [*examples, examples[-1]], "1 repeated, 1 disorder"),
        (lambda examples: [*examples[60:], *examples[:60]], "disorder"),
        (changed(9, request_id="r"), "1 missing, 1 unknown"),
        (changed(9, labels=b"\1\1\1\1"), "1 labels"),
        (changed(9, user_activity=99), "1 user_activity"),
        (changed(9, query_stats=(9,) * 8), "1 query_stats"),
        (changed(9, page=msgspec.Raw(encode_record({"type": "impression"} | dict.fromkeys("abc", "")))), None),
        (nudged, "1 query_decayed"),
    ],
)
def test_wrong_output_fails_the_check(
    found: Found, change: Callable[[list[Example]], list[Example]], wrong: str | None
) -> None:
    if wrong is None:
        with pytest.raises(msgspec.ValidationError):
            found.check(change(found.examples))
        return
    assert wrong in found.check(change(found.examples)).verdict


def test_lost_frame_and_different_outcomes_fail_the_check(found: Found) -> None:
    frames = frames_of(found.examples, found.outcomes)
    check = check_records([*frames[:2], *frames[3:]], PARTITIONS, found.due)
    assert (check.missing, check.gaps) == (7, 1)
    found.outcomes.clicks.late += 1
    assert found.check().verdict == "outcome counts differ"


def test_scaled_log_has_the_same_events_in_less_time(log: Workload, tmp_path: Path) -> None:
    # 120 pages in 240 s are 0.75 events a second as the generator's clock goes by: 20 ms a page, not 2 s.
    fast = scale_workload(log, tmp_path / "fast.jsonl", events_per_second=750.0, seconds=1e6)
    assert (fast.pages, fast.events, fast.window) == (log.pages, log.events, WINDOW // 10)
    lines = [msgspec.json.decode(line) for line in fast.path.read_bytes().splitlines()]
    pages = [line["ts"] for line in lines if line["type"] == "impression"]
    assert pages[-1] - pages[0] == 119 * 2 * SECOND // 10
    assert stage_settings(fast) == {"PRECTR_ATTRIBUTION_WINDOW": "6000ms", "PRECTR_ALLOWED_LATENESS": "50ms"}
    assert pages_for(1501) == 2000


def test_ratios_are_of_medians_over_rounds() -> None:
    def run(name: str, cpu: float, wall: float) -> Run:
        return Run(name=name, pages=10, events=1000, wall=wall, cpu_user=cpu, working_cpu=cpu / 2, check="ok")

    ours = [run("ours, 1 process", cpu, 1.0) for cpu in (1.0, 2.0, 9.0)]
    others = [run("Kafka Streams, exactly once", cpu, 2.0) for cpu in (4.0, 3.0, 5.0)]
    result = Result(command="bench", pages=10, runs=[*ours, *others])
    shown = {section.title.split(":")[0]: section for section in sections(result)}
    assert shown["Ratios"].rows == [["ours, 1 process / Kafka Streams, exactly once", "2.00", "2.00", "2.00"]]
    assert shown["Speed"].rows[0][1:4] == ["1,000", "1.0", "1,000"]
