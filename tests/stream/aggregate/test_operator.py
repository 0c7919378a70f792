"""Stage `aggregate`: every page sees exactly the pages of its query that had closed by its time."""

from collections.abc import Sequence
from functools import cache
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.state.aggregates import LEVELS, NO_COUNTS, LevelCounts
from prectr.state.errors import StateError
from prectr.stream.config import PipelineConfig
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.ordering.frames import Frame as WireFrame
from prectr.stream.ordering.frames import SourceProgress, decode_frame, encode_frames
from prectr.stream.ordering.watermark import SourceIdleness
from prectr.stream.records import (
    Example,
    JoinedPage,
    QueryClick,
    decode_query_clicks,
    encode_record,
)
from prectr.stream.stages import open_aggregate
from tests.kit.stages.aggregate_driver import AggregateDriver, SourceFrame
from tests.kit.stages.events import DAY, HOUR, T
from tests.kit.stages.store import DictStore

HALF_LIVES = (DAY // 4, DAY, 7 * DAY)
NOTHING = msgspec.Raw(b"\x90")


def activity(
    closes_at: int,
    ts: int,
    *,
    query: str = "q",
    name: str = "r",
    counts: LevelCounts = (1, 0, 0, 0, 0, 0, 0, 0),
    clicks: Sequence[str] = (),
) -> JoinedPage:
    clicked = tuple(encode_record(QueryClick(ts, item, 1, None, None, None)) for item in clicks)
    levels = b"".join(bytes([level]) * count for level, count in zip(LEVELS, counts[:4], strict=True))
    labels = b"".join(
        b"\1" * clicked + b"\0" * (shown - clicked) for shown, clicked in zip(counts[:4], counts[4:], strict=True)
    )
    return JoinedPage(
        closes_at, name, "u", ts, query, labels, levels, counts, 3, (1, 2, 3, 4, 0, 0, 1, 1), NOTHING, NOTHING, clicked
    )


def emitted(*records: JoinedPage, config: PipelineConfig | None = None) -> list[Example]:
    driver = AggregateDriver(1, config)
    driver.run([SourceFrame(0, [record], record.closes_at) for record in records])
    driver.end()
    return driver.examples


# --- by hand -------------------------------------------------------------------------------------------------------


def test_a_page_sees_pages_that_closed_at_its_time_and_none_that_closed_later() -> None:
    first = activity(T, T - 1, counts=(5, 0, 0, 2, 1, 0, 0, 2))
    for ts, expected in ((T - 1, NO_COUNTS), (T, first.counts), (T + 1, first.counts)):
        _, second = emitted(first, activity(T + HOUR, ts, name="r2"))
        assert second.query_stats == expected


def test_a_page_does_not_see_itself_and_others_queries() -> None:
    examples = emitted(activity(T, T - 9), activity(T + 1, T + 1, query="other"), activity(T + 2, T + 1, name="s"))
    assert [example.query_stats[0] for example in examples] == [0, 0, 1]


def test_the_fold_never_goes_back() -> None:
    """A late page sees exactly the pages applied by then."""
    records = [activity(T, T - 9), activity(T + HOUR, T, name="r2"), activity(T + HOUR + 1, T - DAY, name="late")]
    assert [example.query_stats[0] for example in emitted(*records)] == [0, 1, 1]


def test_sums_decay_from_the_effective_close_to_the_time_of_the_page() -> None:
    records = [
        activity(T, T - 1, counts=(8, 0, 0, 0, 4, 0, 0, 0)),
        activity(T + DAY, T, name="r2", counts=(2, 0, 0, 0, 0, 0, 0, 0)),
        activity(T + 3 * DAY, T + 2 * DAY, name="r3"),
    ]
    config = PipelineConfig(half_lives=(DAY / 2000, DAY / 1000))
    first, second, third = emitted(*records, config=config)
    assert first.query_decayed == ((0.0,) * 8,) * 2
    assert second.query_decayed == ((8.0, 0, 0, 0, 4.0, 0, 0, 0),) * 2
    half_a_day, one_day = third.query_decayed
    assert half_a_day == (8.0 / 16 + 2.0 / 4, 0, 0, 0, 4.0 / 16, 0, 0, 0)
    assert one_day == (8.0 / 4 + 2.0 / 2, 0, 0, 0, 4.0 / 4, 0, 0, 0)
    assert third.query_stats == (10, 0, 0, 0, 4, 0, 0, 0)


def test_the_last_clicks_by_all_users_are_shown_oldest_first() -> None:
    records = [
        activity(T + number * HOUR, T + number * HOUR, name=f"r{number}", clicks=[f"{number}a", f"{number}b"])
        for number in range(5)
    ]
    last = emitted(*records, config=PipelineConfig(query_clicks=3))[-1]
    assert [click.item_id for click in decode_query_clicks(last.query_clicks)] == ["2b", "3a", "3b"]


def test_what_the_stage_only_passes_on_is_passed_on() -> None:
    (example,) = emitted(activity(T, T - 5, name="r7", query="usb cable"))
    assert (example.closes_at, example.request_id, example.user_id, example.ts) == (T, "r7", "u", T - 5)
    assert (example.query, example.labels, example.levels) == ("usb cable", b"\0", b"\1")
    assert (example.user_activity, example.user_stats) == (3, (1, 2, 3, 4, 0, 0, 1, 1))


def test_an_entry_is_absent_after_its_time_to_live_and_not_before() -> None:
    config = PipelineConfig(query_ttl=DAY / 1000)
    first = activity(T, T - 1, clicks=["a"])
    for ts, seen in ((T + DAY, 1), (T + DAY + 1, 0)):
        _, second, third = emitted(
            first, activity(ts + 1, ts, name="r2"), activity(ts + 3, ts + 2, name="r3"), config=config
        )
        assert second.query_stats[0] == seen
        assert len(decode_query_clicks(second.query_clicks)) == seen
        assert third.query_stats[0] == seen + 1


def test_an_idle_source_holds_everything_and_its_end_releases_it() -> None:
    driver = AggregateDriver(2)
    driver.run([SourceFrame(0, [activity(T, T)], T + DAY)])
    assert driver.examples == []
    assert driver.task.watermark == MIN_WATERMARK
    driver.run([SourceFrame(0, [activity(T, T)], T + DAY), SourceFrame(1, [], T)])
    assert len(driver.examples) == 1
    assert driver.task.watermark == T


# --- random pages against brute force ------------------------------------------------------------------------------


def drawn_pages(seed: int, pages: int) -> list[JoinedPage]:
    """Pages of a few queries in the total order, some late, some exactly at the close of another."""
    rng = Random(seed)
    now, drawn = T, []
    closes: list[int] = [T]
    for number in range(pages):
        now += rng.choice([0, 1, 60_000, HOUR, DAY])
        ts = min(now - 1, rng.choice([now - 120_000, now - 1, now - DAY, rng.choice(closes), now - 100]))
        count = [rng.randint(least, 5) for least in (1, 0, 0, 0)]
        clicked = [rng.randint(0, shown) for shown in count]
        clicks = [f"{number}-{click}" for click in range(sum(clicked))]
        closes.append(now)
        drawn.append(
            activity(
                now,
                ts,
                query=rng.choice("abc"),
                name=f"r{number:04d}",
                counts=msgspec.convert([*count, *clicked], LevelCounts),
                clicks=clicks,
            )
        )
    return drawn


def as_of(pages: Sequence[JoinedPage], number: int) -> list[JoinedPage]:
    """What page `number` sees, from the rules: pages of its query in front of it, closed by the latest time that any
    page of the query up to this one has asked for."""
    same = [page for page in pages[: number + 1] if page.query == pages[number].query]
    asked = max(page.ts for page in same)
    return [page for page in same[:-1] if page.closes_at <= asked]


@cache
def pages_of(seed: int) -> list[JoinedPage]:
    return drawn_pages(seed, 60)


@cache
def seen_by(seed: int) -> list[list[JoinedPage]]:
    pages = pages_of(seed)
    return [as_of(pages, number) for number in range(len(pages))]


def frames_of(pages: list[JoinedPage], sources: int, seed: int) -> list[SourceFrame]:
    """Distribute the pages over sources; each frame carries the source's watermark, some have no records."""
    rng = Random(seed)
    frames: list[list[SourceFrame]] = []
    whose = [rng.randrange(sources) for _ in pages]
    for source in range(sources):
        own = [page for page, owner in zip(pages, whose, strict=True) if owner == source]
        made, start = [], 0
        while start < len(own):
            end = start + rng.randint(0, 4)
            last = own[min(end, len(own)) - 1].closes_at if end > start else own[start].closes_at - 1
            # pages with the same close time as the last one belong to the same frame
            while end < len(own) and own[end].closes_at <= last:
                end += 1
            made.append(SourceFrame(source, own[start:end], last))
            start = end
        frames.append(made)
    mixed = []
    while any(frames):
        source = rng.choice([number for number in range(sources) if frames[number]])
        mixed.append(frames[source].pop(0))
    return mixed


@settings(max_examples=40)
@given(
    seed=st.integers(0, 19),
    cut=st.integers(0, 1 << 30),
    sources=st.integers(1, 4),
    together=st.integers(1, 9),
    crashes=st.sets(st.integers(1, 40), max_size=6),
    held=st.sampled_from([2, 5, 16_384]),
    cached=st.sampled_from([0, 2, 4096]),
)
def test_snapshots_equal_brute_force_whatever_the_sources_batches_memory_and_crashes(
    seed: int, cut: int, sources: int, together: int, crashes: set[int], held: int, cached: int
) -> None:
    pages = pages_of(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prectr.stream.aggregate.operator.MAX_BUFFERED_RECORDS", held)
        patch.setattr("prectr.stream.aggregate.operator.CACHED_QUERIES", cached)
        driver = AggregateDriver(sources)
        driver.run(frames_of(pages, sources, cut), together, crashes)
        driver.end()
    assert [example.request_id for example in driver.examples] == [page.request_id for page in pages]
    for example, seen in zip(driver.examples, seen_by(seed), strict=True):
        totals = [sum(page.counts[column] for page in seen) for column in range(8)]
        assert list(example.query_stats) == totals
        at = max([example.ts, *(page.closes_at for page in seen)])
        for half_life, found in zip(HALF_LIVES, example.query_decayed, strict=True):
            weights = [2.0 ** ((page.closes_at - at) / half_life) for page in seen]
            sums = [sum(w * page.counts[column] for w, page in zip(weights, seen, strict=True)) for column in range(8)]
            assert found == pytest.approx(sums, rel=1e-9)
        last = [click for page in seen for click in page.clicks][-64:]
        shown = decode_query_clicks(example.query_clicks)
        assert [encode_record(click) for click in shown] == last
    assert driver.task.emitted == len(pages)
    assert driver.store.keys(b"h") == []
    assert {key[:1] for key in driver.store.entries} == {b"m", b"q"}


@pytest.mark.parametrize("seed", range(3))
def test_sums_are_the_same_to_the_last_bit_however_the_pages_come(seed: int) -> None:
    pages = pages_of(seed)
    found = []
    for sources, together in ((1, 1), (3, 7), (4, 100)):
        driver = AggregateDriver(sources)
        driver.run(frames_of(pages, sources, seed), together)
        driver.end()
        found.append([encode_record(example) for example in driver.examples])
    assert found[0] == found[1] == found[2]


def test_memory_is_bounded_with_many_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prectr.stream.aggregate.operator.CACHED_QUERIES", 50)
    driver = AggregateDriver(1)
    for number in range(400):
        driver.task.add(0, [activity(T + number, T, query=f"q{number}")], T + number)
        driver.drain()
        assert driver.task.cached_queries <= 51
    assert len(driver.store.keys(b"q")) == 400


def test_a_task_has_backlog_until_due_records_have_left_its_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prectr.stream.aggregate.operator.MAX_BUFFERED_RECORDS", 4)
    store = DictStore()
    task = open_aggregate(PipelineConfig(), store, 2)
    task.add(0, [activity(T + number, T, name=f"r{number}") for number in range(20)], T + DAY)
    assert task.process() == []
    store.write(task.drain_changes())
    assert not task.has_backlog
    task.add(1, [], T + DAY)
    rounds: list[list[str]] = []
    while task.has_backlog:
        rounds.append([example.request_id for example in task.process()])
        store.write(task.drain_changes())
    assert [name for names in rounds for name in names] == [f"r{number}" for number in range(20)]
    assert len(rounds) > 5
    assert task.next_sequences == [1, 1]


# --- frames as they go over the wire -------------------------------------------------------------------------------


def on_the_wire(frames: list[SourceFrame], sources: int) -> list[WireFrame]:
    """Encode and decode the parts of every frame, with sequences by source."""
    following, parts = [0] * sources, []
    for frame in frames:
        values = encode_frames(
            frame.source,
            following[frame.source],
            [encode_record(record) for record in frame.records],
            SourceProgress(
                watermark=frame.watermark, outcomes={frame.source: Outcomes(unreadable=following[frame.source])}
            ),
        )
        following[frame.source] += len(values)
        parts += [decode_frame(value, "here") for value in values]
    return parts


def take(driver: AggregateDriver, part: WireFrame) -> None:
    driver.task.add_frame(part, "here")


@pytest.mark.parametrize("most", [1, 300, 512 << 10])
def test_frames_in_parts_over_the_wire_change_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any maximum size of a part, with the state written and restored between any two."""
    monkeypatch.setattr("prectr.stream.ordering.frames.MAX_FRAME_BYTES", most)
    pages, sources = pages_of(2), 3
    frames = frames_of(pages, sources, 2)
    whole = AggregateDriver(sources)
    whole.run(frames)
    whole.end()
    driver = AggregateDriver(sources)
    parts = on_the_wire(frames, sources)
    assert (len(parts) > len(frames)) == (most < 1000)
    for part in parts:
        take(driver, part)
        driver.drain()
        driver.restart()
        assert not driver.task.reached_end_offsets
    reported = {source: Outcomes(unreadable=_last_numbered(parts, source)) for source in range(sources)}
    assert driver.task.outcomes == reported
    for source, position in enumerate(driver.task.next_sequences):
        take(driver, WireFrame(source, position, True, 1 << 60, 0, None, {source: 7}, {}, 0, []))
    driver.drain()
    assert driver.task.reached_end_offsets == dict.fromkeys(range(sources), 7)
    assert driver.task.late_records == 0
    assert driver.examples == whole.examples


def _last_numbered(parts: list[WireFrame], source: int) -> int:
    """Sequence of the first part of the source's last frame, from which its outcomes were made."""
    own = [part for part in parts if part.source == source]
    ends = [at for at, part in enumerate(own) if part.is_last_part]
    return own[ends[-2] + 1].sequence if len(ends) > 1 else 0


def test_the_requested_read_offset_of_a_source_survives_a_resume() -> None:
    driver = AggregateDriver(1)
    for sequence, (reported, known) in enumerate([({0: 5}, {0: 5}), ({}, {0: 5}), ({0: 9}, {0: 9})]):
        take(driver, WireFrame(0, sequence, True, T + sequence, 0, None, reported, {}, 0, []))
        driver.drain()
        driver.restart()
        assert driver.task.reached_end_offsets == known


@pytest.mark.parametrize("sequence", [0, 2])
def test_a_missing_or_repeated_frame_is_an_error(sequence: int) -> None:
    driver = AggregateDriver(2)
    take(driver, WireFrame(1, 0, True, T, 0, None, {}, {}, 0, []))
    with pytest.raises(StateError, match=f"frame {sequence} of join task 1 arrived where 1 was due"):
        take(driver, WireFrame(1, sequence, True, T, 0, None, {}, {}, 0, []))


@pytest.mark.parametrize(
    ("value", "message"),
    [(b"", "format nothing"), (b"\1\x90", "format 1, this program reads 2"), (b"\2{}", "not a frame")],
)
def test_bytes_that_are_no_frame_are_an_error_that_names_the_offset(value: bytes, message: str) -> None:
    with pytest.raises(StateError, match=f"joined-pages/0/7.*{message}"):
        decode_frame(value, "joined-pages/0/7")


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 60))
def test_parts_hold_all_records_in_order_within_the_size_where_that_can_be(sizes: list[int], most: int) -> None:
    records = [msgspec.msgpack.encode(b"x" * size) for size in sizes]
    idleness = SourceIdleness([4, 9], T + 5)
    progress = SourceProgress(watermark=T, read_offset=7, idleness=idleness, reached_end_offsets={3: 9})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prectr.stream.ordering.frames.MAX_FRAME_BYTES", most)
        values = encode_frames(3, 5, records, progress)
        parts = [decode_frame(value, "here") for value in values]
    assert [bytes(record) for part in parts for record in part.records] == records
    assert [part.sequence for part in parts] == list(range(5, 5 + len(parts)))
    assert [part.is_last_part for part in parts] == [False] * (len(parts) - 1) + [True]
    for part in parts:
        assert len(part.records) <= 1 or sum(len(bytes(record)) for record in part.records) <= most
        assert (part.source, part.watermark, part.read_offset, part.idleness, part.reached_end_offsets) == (
            3,
            T,
            7,
            idleness,
            {3: 9},
        )
