"""Oracle: computes the expected output directly from the lines of a log, and checks a topic of examples against it.

Shares no code with the stages except the contracts of input and output. Valid for logs in order of time whose clicks
belong to their page's user.
"""

import gc
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec
from kafka import TopicPartition

from bench.stream.workload import Workload
from prectr.stream.events.contract import Click, Event, ResultPage
from prectr.stream.join.outcomes import ClickOutcomes, Outcomes, PageOutcomes
from prectr.stream.kafka.client.client import Connection
from prectr.stream.ordering.frames import Frame, decode_frame
from prectr.stream.records import Example, decode_example, decode_page

HALF_LIVES_MS: Final = (6 * 3_600_000, 86_400_000, 7 * 86_400_000)
"""Default of `half_lives`."""
TOLERANCE: Final = 1e-9
"""Tolerance of decayed sums, relative (absolute below 1)."""
_POLL_MS: Final = 500

_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.msgpack.Encoder().encode
_EightCounts = tuple[int, ...]


class ExpectedPage(NamedTuple):
    """An expected page. order: its rank in total event-time order. content: hash of all its fields."""

    order: int
    ts: int
    user_id: str
    query: str
    labels: bytes
    levels: bytes
    user_activity: int
    user_stats: _EightCounts
    query_stats: _EightCounts
    query_decayed: tuple[tuple[float, ...], ...]
    content: int


class ExpectedOutput(NamedTuple):
    """The expected output: pages by request_id, and outcomes of all events."""

    pages: dict[str, ExpectedPage]
    outcomes: Outcomes


class CommittedRecord(NamedTuple):
    """A committed record. timestamp: ms; the broker's append time if the topic is configured so."""

    partition: int
    offset: int
    timestamp: int
    value: bytes


class CheckResult(msgspec.Struct, kw_only=True):
    """The actual output, and its differences from the expected one.

    disorder: pages preceded in their partition by a page that is later in total event-time order. moved: pages whose
    query also occurs in another partition. gaps: frames whose sequence number is not the next. wrong: number of pages
    by differing field. ends: offset of the last frame with examples, by partition.
    """

    pages: int = 0
    frames: int = 0
    bytes: int = 0
    missing: int = 0
    repeated: int = 0
    unknown: int = 0
    disorder: int = 0
    moved: int = 0
    gaps: int = 0
    wrong: dict[str, int] = {}
    outcomes: Outcomes | None = None
    outcomes_wrong: bool = False
    ends: dict[int, int] = {}

    @property
    def ok(self) -> bool:
        """Whether the output is as expected."""
        counts = (self.missing, self.repeated, self.unknown, self.disorder, self.moved, self.gaps)
        return not any(counts) and not self.wrong and not self.outcomes_wrong

    @property
    def verdict(self) -> str:
        """`ok`, or a description of the differences."""
        if self.ok:
            return "ok"
        names = ("missing", "repeated", "unknown", "disorder", "moved", "gaps")
        counts = {name: count for name in names if (count := getattr(self, name))} | self.wrong
        words = [f"{count} {name}" for name, count in counts.items()]
        return ", ".join([*words, *(["outcome counts differ"] if self.outcomes_wrong else [])])


class _JoinedClicks(NamedTuple):
    clicked: set[tuple[str, str]]
    times: dict[str, list[int]]
    outcomes: ClickOutcomes


class _RunningAggregates:
    """Counts over pages in order of close time, as of a time.

    Decay is relative to one fixed base time, which float64 has room for over 1,000 half-lives.
    """

    __slots__ = ("applied", "counts", "pages", "sums")

    def __init__(self) -> None:
        self.pages: list[tuple[int, _EightCounts]] = []
        self.applied = 0
        self.counts = [0] * 8
        self.sums = {half_life: [0.0] * 8 for half_life in HALF_LIVES_MS}

    def as_of(self, ts: int, base: int) -> tuple[_EightCounts, tuple[tuple[float, ...], ...]]:
        while self.applied < len(self.pages) and self.pages[self.applied][0] <= ts:
            closes_at, counts = self.pages[self.applied]
            for index, count in enumerate(counts):
                self.counts[index] += count
            for half_life, sums in self.sums.items():
                weight = 2.0 ** ((closes_at - base) / half_life)
                for index, count in enumerate(counts):
                    sums[index] += weight * count
            self.applied += 1
        return tuple(self.counts), tuple(
            tuple([total * 2.0 ** ((base - ts) / half_life) for total in sums]) for half_life, sums in self.sums.items()
        )


def expected_output(workload: Workload) -> ExpectedOutput:
    """Compute the expected output of a log that is read to its end and flushed."""
    gc.disable()
    try:
        return _compute_expected(workload)
    finally:
        gc.enable()


def _compute_expected(workload: Workload) -> ExpectedOutput:
    shown: list[tuple[int, str, str, ResultPage]] = []
    clicks: list[Click] = []
    with workload.path.open("rb") as lines:
        for line in lines:
            event = _decode(line)
            if isinstance(event, Click):
                clicks.append(event)
            else:
                shown.append((event.ts + workload.window, event.request_id, event.user_id, event))
    shown.sort(key=itemgetter(0, 1, 2))
    clicked, times, click_outcomes = _join_clicks(clicks, {page[1]: page[3] for page in shown}, workload.window)
    base = shown[0][0]
    by_user: defaultdict[str, _RunningAggregates] = defaultdict(_RunningAggregates)
    by_query: defaultdict[str, _RunningAggregates] = defaultdict(_RunningAggregates)
    pages = {}
    for order, (closes_at, request_id, user_id, page) in enumerate(shown):
        labels = bytes([(request_id, item.item_id) in clicked for item in page.items])
        levels = bytes([item.relevance or 0 for item in page.items])
        user_aggregates, query_aggregates = by_user[user_id], by_query[page.query]
        user_stats, _ = user_aggregates.as_of(page.ts, base)
        query_stats, decayed = query_aggregates.as_of(page.ts, base)
        activity = bisect_left(times.get(user_id, []), page.ts)
        content = hash(_encode(page))
        pages[request_id] = ExpectedPage(
            order, page.ts, user_id, page.query, labels, levels, activity, user_stats, query_stats, decayed, content
        )
        counts = [0] * 8
        for level, label in zip(levels, labels, strict=True):
            counts[level - 1] += 1
            counts[level + 3] += label
        user_aggregates.pages.append((closes_at, tuple(counts)))
        query_aggregates.pages.append((closes_at, tuple(counts)))
    return ExpectedOutput(pages, Outcomes(PageOutcomes(received=len(shown), emitted=len(shown)), click_outcomes))


def _join_clicks(clicks: list[Click], pages: dict[str, ResultPage], window: int) -> _JoinedClicks:
    """Determine the outcome of every click. The log is in order of time, so a page is open for its whole window."""
    clicked: set[tuple[str, str]] = set()
    times: defaultdict[str, list[int]] = defaultdict(list)
    outcomes = ClickOutcomes(received=len(clicks))
    for click in clicks:
        page = pages.get(click.request_id)
        key = (click.request_id, click.item_id)
        if page is None:
            outcomes.orphan += 1
        elif click.ts > page.ts + window:
            outcomes.late += 1
        elif key in clicked:
            outcomes.duplicate += 1
        else:
            clicked.add(key)
            times[click.user_id].append(click.ts)
            outcomes.joined += 1
    return _JoinedClicks(clicked, times, outcomes)


def check_topic(
    connection: Connection, topic: str, partitions: int, output: ExpectedOutput, *, flushed: bool = True
) -> CheckResult:
    """Check the committed records of a topic of examples; see `check_records`."""
    return check_records(read_committed(connection, topic, partitions), partitions, output, flushed=flushed)


def check_records(
    records: Iterable[CommittedRecord], partitions: int, output: ExpectedOutput, *, flushed: bool = True
) -> CheckResult:
    """Compare the frames of a topic of examples with the expected output.

    flushed: whether the log was read to its end and every page closed; otherwise pages may be missing, and the counts
    of outcomes are not compared.
    """
    check = CheckResult()
    seen: set[str] = set()
    partition_of_query: dict[str, int] = {}
    last = [-1] * partitions
    wrong: Counter[str] = Counter()
    sequences = [0] * partitions
    outcomes: dict[int, Outcomes] = {}
    for record in records:
        partition = record.partition
        frame: Frame = decode_frame(record.value, f"examples, partition {partition} offset {record.offset}")
        check.frames += 1
        check.bytes += len(record.value)
        check.gaps += frame.source != partition or frame.sequence != sequences[partition]
        sequences[partition] = frame.sequence + 1
        for task, counts in frame.outcomes.items():
            if task not in outcomes or counts.records >= outcomes[task].records:
                outcomes[task] = counts
        if frame.records:
            check.ends[partition] = record.offset
        for encoded in frame.records:
            example = decode_example(encoded)
            page = output.pages.get(example.request_id)
            if page is None:
                check.unknown += 1
                continue
            check.pages += 1
            check.repeated += example.request_id in seen
            seen.add(example.request_id)
            check.moved += partition_of_query.setdefault(example.query, partition) != partition
            check.disorder += page.order <= last[partition]
            last[partition] = max(last[partition], page.order)
            wrong.update(_differences(example, page))
    check.wrong = dict(wrong)
    if flushed:
        check.missing = len(output.pages) - len(seen)
        check.outcomes = sum(outcomes.values(), Outcomes())
        check.outcomes_wrong = check.outcomes != output.outcomes
    return check


def _differences(example: Example, page: ExpectedPage) -> Iterator[str]:
    for name in ("ts", "user_id", "query", "labels", "levels", "user_activity", "user_stats", "query_stats"):
        if getattr(example, name) != getattr(page, name):
            yield name
    pairs = zip(chain(*example.query_decayed), chain(*page.query_decayed), strict=True)
    if any(abs(found - wanted) > TOLERANCE * max(1.0, abs(wanted)) for found, wanted in pairs):
        yield "query_decayed"
    if hash(_encode(decode_page(example.page))) != page.content:
        yield "page"


def read_committed(connection: Connection, topic: str, count: int) -> Iterator[CommittedRecord]:
    """Yield what is compared of each record of `committed_records`."""
    for record in committed_records(connection, topic, count):
        yield CommittedRecord(record.partition, record.offset, record.timestamp, record.value or b"")


def committed_records(connection: Connection, topic: str, count: int) -> Iterator[Any]:
    """Yield all committed records of a topic up to its current last stable offset, in order within a partition.

    Args:
        count: partitions of the topic.
    """
    consumer = connection.consumer(group_id=None)
    try:
        partitions = [TopicPartition(topic, number) for number in range(count)]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for records in consumer.poll(timeout_ms=_POLL_MS).values():
                yield from records
    finally:
        consumer.close()
