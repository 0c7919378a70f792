"""`bench.mutations`: what it sends is the same for a seed, and its checks notice what is lost, repeated or growing."""

import random
from collections import Counter
from pathlib import Path

import pytest

from bench.mutations.generator.base_events import START, Event, base_events
from bench.mutations.generator.direct_records import SHAPES, direct_records
from bench.mutations.generator.event_stream import EventStream
from bench.mutations.generator.field_mutations import FIELD_MUTATIONS, paths, replace_at
from bench.mutations.generator.grammar import KINDS, encode, mutate
from bench.mutations.generator.hypothesis_edits import Added, Edit, Replaced, Rewritten, Spliced, edit_pool
from bench.mutations.generator.line_mutations import LARGE_LINE_MUTATIONS, LINE_MUTATIONS
from bench.mutations.live_run import LiveResult
from bench.mutations.memory_trace import MemorySample
from bench.mutations.oracle import expect_partition, read_value
from bench.mutations.processes import STREAMS, TRAINER
from bench.mutations.topic_contents import ContentSum, DeadLettersTopic, EventsTopic
from bench.mutations.verdict import Check, TopicContents, conservation_checks, memory_checks, oracle_checks
from prectr.stream.events.contract import MAX_EVENT_BYTES, InvalidEvent
from prectr.stream.events.decode import decode_lines
from testkit.oracle.contract import partition_of
from tests.kit.stages.events import click, page

T = START
EDITS: list[Edit] = [Replaced(0.3, None), Added("x", "\ud800"), Spliced(0.5, 2, b"\xff"), Rewritten(b"{}")]


def test_hypothesis_makes_the_same_edits_for_a_seed_and_others_for_another() -> None:
    assert repr(edit_pool(60, 5)) == repr(edit_pool(60, 5)) != repr(edit_pool(60, 6))


def test_a_stream_is_the_same_for_a_seed_and_counts_what_it_mutated() -> None:
    streams = [EventStream(seed, EDITS) for seed in (3, 3, 4)]
    lines = [list(stream.mutated(2_000)) for stream in streams]
    assert lines[0] == lines[1] != lines[2]
    composition = streams[0].composition
    assert composition.mutated == 2_000
    # Those that are late may still be held back.
    assert 0 <= composition.mutated + composition.untouched - len(lines[0]) < 400


def test_a_stream_has_every_kind_of_mutation() -> None:
    rng = random.Random(1)
    events = base_events(rng)
    kinds = Counter(kind for _ in range(20_000) for kind in mutate(rng, next(events)).kinds)
    assert set(kinds) == set(KINDS)


@pytest.mark.parametrize("name", [*FIELD_MUTATIONS, *LINE_MUTATIONS])
def test_every_mutation_takes_any_event_and_changes_it(name: str) -> None:
    rng = random.Random(2)
    events = base_events(rng)
    changed = 0
    for _ in range(150):
        event: Event = next(events)
        if name in FIELD_MUTATIONS:
            # One that is mutated already.
            mutated = FIELD_MUTATIONS[name](rng, FIELD_MUTATIONS[rng.choice(list(FIELD_MUTATIONS))](rng, event))
            changed += repr(mutated) != repr(event)
            encode(rng, mutated)
        else:
            line = encode(rng, event)
            changed += LINE_MUTATIONS[name](rng, line) != line
    assert changed > 75


def test_lines_of_about_a_mebibyte_lie_on_both_sides_of_the_limit() -> None:
    rng = random.Random(3)
    line = page("r1", "u1", T)
    near = {len(LARGE_LINE_MUTATIONS["1 MiB"](rng, line)) - MAX_EVENT_BYTES for _ in range(60)}
    assert near == {-2, -1, 0, 1, 2}
    assert len(LARGE_LINE_MUTATIONS["over 1 MiB"](rng, line)) >= MAX_EVENT_BYTES


def test_a_value_is_replaced_at_any_place_and_the_event_is_left_alone() -> None:
    event = {"a": 1, "items": [{"b": 2}, {"b": 3}]}
    assert paths(event) == [("a",), ("items",), ("items", 0), ("items", 0, "b"), ("items", 1), ("items", 1, "b")]
    assert replace_at(event, ("items", 1, "b"), 7) == {"a": 1, "items": [{"b": 2}, {"b": 7}]}
    assert event == {"a": 1, "items": [{"b": 2}, {"b": 3}]}


def test_direct_records_lie_with_their_user_whatever_their_key_unless_they_are_misplaced() -> None:
    rng, shapes = random.Random(4), Counter[str]()
    lines = [page(f"r{number}", f"u{number % 40}", T) for number in range(400)]
    records = list(direct_records(rng, lines, 4, shapes))
    assert set(shapes) >= set(SHAPES)
    plain = [(record, f"u{number % 40}") for number, record in enumerate(records) if record.value == lines[number]]
    assert len(plain) > 100
    assert all(record.partition == partition_of(user, 4) for record, user in plain)
    misplaced = [
        record.partition != partition_of("u7", 4)
        for record in direct_records(rng, [page("r", "u7", T)] * 200, 4, shapes, misplaced=True)
    ]
    assert sum(misplaced) > 100


def test_the_oracle_reads_a_mutated_line_as_the_decoder_does() -> None:
    lines = list(EventStream(9, [*EDITS, *edit_pool(150, 9)]).mutated(4_000))
    judged = 0
    for line, event in zip(lines, decode_lines(lines), strict=True):
        reading = read_value(line)
        if reading.judged:
            valid = not isinstance(event, InvalidEvent)
            assert (reading.event is not None) == valid, line[:300]
            assert valid or reading.kind == event.kind, line[:300]
            judged += 1
    assert judged > 0.95 * len(lines)


def test_the_oracle_reads_no_text_with_a_lone_surrogate_even_where_another_value_follows() -> None:
    line = click("r1", "u1", T)
    assert read_value(line).kind == "click"
    assert read_value(line[:-1] + rb',"x":["\ud800"]}').kind == "unreadable"
    assert read_value(rb'{"type":"\ud800",' + line[1:]).kind == "unreadable"


def partition_file(path: Path, values: list[bytes]) -> Path:
    path.write_bytes(b"".join(value + b"\n" for value in values))
    return path


def test_the_oracle_names_the_outcome_of_each_record(tmp_path: Path) -> None:
    twice = b'{"ts":1,' + click("r1", "u1", T + 8)[1:]
    values = [page("r1", "u1", T), click("r1", "u1", T + 5), b"", b"{", page("r1", "u1", T), twice, b"\xff"]
    offsets = [3, 4, 7, 8, 9, 12, 13]
    found = expect_partition(partition_file(tmp_path / "0.jsonl", values), offsets, {7, 8, 12, 13})
    assert found.dead == {7, 8, 12, 13}
    assert found.unjudged == 1
    pages, clicks = found.outcomes.pages, found.outcomes.clicks
    assert (pages.received, pages.emitted, pages.duplicate) == (2, 1, 1)
    assert (clicks.received, clicks.joined, clicks.dead_letter) == (2, 1, 1)
    assert found.outcomes.unreadable == 3
    accepted = expect_partition(tmp_path / "0.jsonl", offsets, set())
    assert accepted.outcomes.clicks.duplicate == 1


class Balanced:
    """A run of which every check holds: a page that was emitted, a click that was joined, a blank line."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        values = [page("r1", "u1", T), click("r1", "u1", T + 5), b""]
        self.sent = ContentSum()
        content = ContentSum()
        for value in values:
            self.sent.add(value)
        for value in reversed(values):
            content.add(value)
        hashes = {(0, offset): (1, 2) for offset in range(3)}
        self.events = EventsTopic([partition_file(folder / "0.jsonl", values)], hashes, content)
        self.dead_letters = DeadLettersTopic(Counter({(0, 2): 1}), Counter({"blank": 1}), {(0, 2)})
        self.examples = 1
        pages, clicks = {"in": 1, "emitted": 1}, {"in": 1, "joined": 1}
        report = {"outcomes": {"pages": pages, "clicks": clicks, "unreadable": 1}, "late_records": 0}
        self.live = LiveResult(lines=2, loaded=2, direct=1, report=report)

    def failed(self) -> list[str]:
        topics = TopicContents(self.events, self.dead_letters, self.examples)
        expected = [expect_partition(self.events.logs[0], self.events.offsets(0), {2})]
        checks: list[Check] = conservation_checks(self.live, self.sent, topics)
        checks += oracle_checks(self.live, self.dead_letters, expected)
        return [each.name for each in checks if not each.holds]


def test_every_check_holds_where_every_event_has_one_outcome(tmp_path: Path) -> None:
    assert Balanced(tmp_path / "run").failed() == []


def test_what_is_lost_repeated_or_counted_otherwise_fails_a_check(tmp_path: Path) -> None:
    lost_line, lost_record, lost_letter, other_letter, repeated, lost_example, miscounted = (
        Balanced(tmp_path / str(number)) for number in range(7)
    )
    lost_line.live.loaded = 1
    del lost_record.events.hashes[0, 1]
    lost_record.events.logs[0].write_bytes(page("r1", "u1", T) + b"\n\n")
    assert "lines and direct records: on the topic" in lost_record.failed()
    lost_letter.dead_letters.by_source.clear()
    other_letter.dead_letters.by_source = Counter({(0, 1): 1})
    repeated.dead_letters.by_source[0, 2] = 2
    lost_example.examples = 0
    miscounted.live.report["outcomes"]["clicks"]["joined"] = 0
    assert lost_line.failed() == ["lines of the files: sent by the loader"]
    assert "events rejected: sources of dead letters" in lost_letter.failed()
    assert other_letter.failed() == ["dead letters of other records than the oracle's"]
    assert repeated.failed() == ["dead letters that repeat a source"]
    assert lost_example.failed() == ["pages emitted: examples on the topic"]
    assert set(miscounted.failed()) == {"sums of outcomes that do not balance", "outcomes: the oracle's"}


@pytest.mark.parametrize(("last", "flat"), [(420.0, True), (520.0, False)])
def test_memory_that_still_grows_in_the_last_quarter_fails(last: float, flat: bool) -> None:
    resident = [100.0, 400.0, 400.0, last]
    samples = [MemorySample(records, resident[records // 26]) for records in range(101)]
    checks = memory_checks(LiveResult(memory=dict.fromkeys((*STREAMS, TRAINER), samples)))
    assert [each.holds for each in checks] == [flat] * 3
