"""The merged watermark with idle sources: against its definition, and in a simulated group of tasks."""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.ordering.watermark import MergedWatermark, SourceIdleness, initial_watermark, observe

SEEDS = st.integers(0, 1 << 30)


class Report(NamedTuple):
    """What one source reports of itself."""

    source: int
    watermark: int
    read: int
    idleness: SourceIdleness | None = None


def report(merged: MergedWatermark, sent: Report) -> None:
    observe(merged, sent.source, sent.watermark, sent.read, sent.idleness)


def watermarks(reports: list[Report], sources: int) -> list[int]:
    """The merged watermark after each report."""
    merged = initial_watermark(sources)
    found = []
    for each in reports:
        report(merged, each)
        found.append(merged.watermark)
    return found


def watermarks_by_definition(reports: list[Report], sources: int) -> list[int]:
    """The same computed from the complete history each time."""
    found: list[int] = []
    for count in range(1, len(reports) + 1):
        known = reports[:count]
        watermark = min(_source_limit_by_definition(known, source, sources) for source in range(sources))
        found.append(max([watermark, *found[-1:]]))
    return found


def _source_limit_by_definition(reports: list[Report], source: int, sources: int) -> int:
    own = _highest_watermark(reports, source)
    last = next((each for each in reversed(reports) if each.source == source), None)
    if last is None or last.idleness is None:
        return own
    seen = last.idleness.observed_offsets
    others = [_highest_watermark(reports, other, upto=seen[other]) for other in range(sources) if other != source]
    return max(own, min(last.idleness.hold_until, max(others, default=MIN_WATERMARK)))


def _highest_watermark(reports: list[Report], source: int, upto: int | None = None) -> int:
    """The highest watermark of a source; with `upto`, while it had read no further and had not ended."""
    return max(
        (
            each.watermark
            for each in reports
            if each.source == source and (upto is None or (each.read <= upto and each.watermark < MAX_WATERMARK))
        ),
        default=MIN_WATERMARK,
    )


def drawn(rng: Random, sources: int, count: int, *, idle_sources: range) -> list[Report]:
    """Sources that read at their own pace, some of them idle at times."""
    watermarks, reads = [0] * sources, [0] * sources
    claims = [[0] * sources for _ in range(sources)]
    reports: list[Report] = []
    living = list(range(sources))
    while living and len(reports) < count:
        source = rng.choice(living)
        if rng.random() < 0.8:
            reads[source] += rng.choice([0, 1, 1, 5])
            watermarks[source] += rng.choice([0, 1, 3, 40])
        idleness = None
        if source in idle_sources and rng.random() < 0.6:
            # A source's samples of the logs never go back.
            claims[source] = [
                max(at, rng.randint(at, max(at, read) + 3)) for at, read in zip(claims[source], reads, strict=True)
            ]
            bound = rng.choice([MAX_WATERMARK, watermarks[source] + rng.choice([0, 1, 10, 200])])
            idleness = SourceIdleness(list(claims[source]), bound)
        if rng.random() < 0.02:  # for good: no further report
            living.remove(source)
            reports.append(Report(source, MAX_WATERMARK, reads[source]))
        else:
            reports.append(Report(source, watermarks[source], reads[source], idleness))
    return reports


@given(seed=SEEDS, sources=st.integers(1, 4))
def test_without_idle_sources_it_is_the_lowest_watermark(seed: int, sources: int) -> None:
    reports = drawn(Random(seed), sources, 40, idle_sources=range(0))
    expected = [
        min(_highest_watermark(reports[:count], source) for source in range(sources))
        for count in range(1, len(reports) + 1)
    ]
    assert watermarks(reports, sources) == expected


@settings(max_examples=200)
@given(seed=SEEDS, sources=st.integers(2, 4))
def test_one_idle_source_is_excluded_exactly_as_defined(seed: int, sources: int) -> None:
    """Idle from the beginning and renewing its idleness, so that no history that it refers to is dropped."""
    claim = SourceIdleness([0] * sources, 0)
    reports = [Report(0, 0, 0, claim)]
    for each in drawn(Random(seed), sources, 60, idle_sources=range(1)):
        claim = each.idleness or claim
        reports.append(each if each.source else each._replace(idleness=claim))
    assert watermarks(reports, sources) == watermarks_by_definition(reports, sources)


@settings(max_examples=300)
@given(seed=SEEDS, sources=st.integers(1, 4))
def test_with_any_idle_sources_it_is_monotonic_and_within_the_definition(seed: int, sources: int) -> None:
    reports = drawn(Random(seed), sources, 60, idle_sources=range(sources))
    found = watermarks(reports, sources)
    assert found == sorted(found)
    allowed = watermarks_by_definition(reports, sources)
    assert all(watermark <= limit for watermark, limit in zip(found, allowed, strict=True))


@settings(max_examples=200)
@given(seed=SEEDS, sources=st.integers(2, 4), most=st.integers(2, 9))
def test_steps_that_are_dropped_only_delay(seed: int, sources: int, most: int) -> None:
    """However few are kept: never beyond the definition, and equal to it after idleness for all that is read."""
    reports = drawn(Random(seed), sources, 80, idle_sources=range(sources))
    reads = [max((each.read for each in reports if each.source == source), default=0) for source in range(sources)]
    reports += [
        Report(source, MIN_WATERMARK, reads[source], SourceIdleness(reads, MAX_WATERMARK)) for source in range(sources)
    ]
    allowed = watermarks_by_definition(reports, sources)
    with patch("prectr.stream.ordering.watermark._MAX_HISTORY", most):
        found = watermarks(reports, sources)
        merged = initial_watermark(sources)
        for each in reports:
            report(merged, each)
            assert all(len(steps) <= most for steps in merged.watermark_history)
    assert all(watermark <= limit for watermark, limit in zip(found, allowed, strict=True))
    assert found[-1] == allowed[-1]


def test_memory_of_a_source_is_bounded_while_another_is_idle_for_long() -> None:
    merged = initial_watermark(2)
    observe(merged, 1, 0, 0, SourceIdleness([0, 0], MAX_WATERMARK))
    for number in range(5_000):
        observe(merged, 0, number, number, None)
    assert len(merged.watermark_history[0]) < 300
    assert merged.watermark == 0
    observe(merged, 1, 0, 0, SourceIdleness([4_999, 0], MAX_WATERMARK))
    assert merged.watermark == 4_999


def test_a_pause_of_all_sources_advances_past_none_of_them() -> None:
    """The source that is read first waits for what the others have still to read."""
    merged = initial_watermark(2)
    observe(merged, 0, 100, 5, SourceIdleness([5, 7], 109))
    observe(merged, 1, 80, 7, SourceIdleness([5, 7], 89))
    assert merged.watermark == 89  # source 1 holds a page that closes at 90
    observe(merged, 0, 500, 6, None)
    assert merged.watermark == 89
    observe(merged, 1, 480, 8, None)
    assert merged.watermark == 480


def test_a_finished_source_does_not_hold_the_watermark() -> None:
    merged = initial_watermark(2)
    observe(merged, 0, 50, 5, None)
    observe(merged, 0, MAX_WATERMARK, 5, None)
    observe(merged, 1, 10, 3, SourceIdleness([9, 3], MAX_WATERMARK))
    assert merged.watermark == 50


# --- a simulated group of tasks --------------------------------------------------------------------------------


class Event(NamedTuple):
    """arrived: time of its append to the partition, by the clock of the world. ts: its event time."""

    arrived: int
    ts: int
    partition: int


class Claim(NamedTuple):
    """An idleness as a task may report it. at: when nothing was unread. since: time of `observed_offsets`."""

    at: int
    since: int


class Reader:
    """A task: reads its partition in order, keeps pages until they close, and sends closed ones in frames."""

    def __init__(self, number: int, log: list[list[Event]], lateness: int, window: int) -> None:
        self.number = number
        self.log = log
        self.lateness, self.window = lateness, window
        self.read = 0
        self.watermark = MIN_WATERMARK
        self.open: list[int] = []

    def take(self, count: int) -> tuple[Report, list[int]]:
        """Read `count` events; return the frame and the close times of its records."""
        closed: list[int] = []
        for event in self.log[self.number][self.read : self.read + count]:
            self.read += 1
            self.watermark = max(self.watermark, event.ts - self.lateness)
            closed += self._close()
            self.open.append(max(event.ts + self.window, self.watermark + 1))
        return self.report(None), closed

    def report(self, idleness: SourceIdleness | None) -> Report:
        return Report(self.number, self.watermark, self.read, idleness)

    def claim(self, claim: Claim) -> Report | None:
        """Return the frame that reports idleness, if the task is idle."""
        if self.read < ends(self.log, claim.at)[self.number]:
            return None
        bound = MAX_WATERMARK if self.watermark == MIN_WATERMARK else min(self.open, default=MAX_WATERMARK) - 1
        return self.report(SourceIdleness(ends(self.log, claim.since), bound))

    def flush(self) -> tuple[Report, list[int]]:
        return Report(self.number, MAX_WATERMARK, self.read), sorted(self.open)

    def _close(self) -> list[int]:
        closed = sorted(at for at in self.open if at <= self.watermark)
        self.open = [at for at in self.open if at > self.watermark]
        return closed


def ends(log: list[list[Event]], at: int) -> list[int]:
    return [sum(event.arrived <= at for event in events) for events in log]


def world(rng: Random, partitions: int, lateness: int) -> list[list[Event]]:
    """Events appended in the order of time up to the lateness, with pauses and idle partitions."""
    now = 1_000
    log: list[list[Event]] = [[] for _ in range(partitions)]
    awake = list(range(partitions))
    for _ in range(rng.randint(1, 60)):
        if rng.random() < 0.1:
            awake = rng.sample(range(partitions), rng.randint(1, partitions))
        now += rng.choice([0, 1, 1, 3, 10, 200])
        partition = rng.choice(awake)
        log[partition].append(Event(now, now - rng.randint(0, lateness), partition))
    return log


def frames_of(rng: Random, reader: Reader, upto: int) -> Iterator[tuple[Report, list[int]]]:
    """The frames of a task from the first to the last event of the world; it reports idleness only when true."""
    now = 0
    looked = 0
    while now < upto:
        now += rng.choice([1, 5, 20, 100, 400])
        there = ends(reader.log, now)[reader.number]
        if reader.read < there:
            yield reader.take(rng.randint(1, there - reader.read))
        elif rng.random() < 0.7:
            since = looked if rng.random() < 0.5 else rng.randint(0, now)
            if (sent := reader.claim(Claim(now, since))) is not None:
                yield sent, []
        looked = now
    yield reader.take(len(reader.log[reader.number]))


def interleaved(rng: Random, queues: list[list[tuple[Report, list[int]]]]) -> Iterator[tuple[Report, list[int]]]:
    """Frames of every source in its order, interleaved at random; some sources are far ahead."""
    queues = [list(queue) for queue in queues]
    while any(queues):
        queue = rng.choice([queue for queue in queues if queue])
        for _ in range(rng.randint(1, rng.choice([1, 3, 100]))):
            if queue:
                yield queue.pop(0)


@settings(max_examples=300)
@given(
    seed=SEEDS, partitions=st.integers(1, 4), lateness=st.sampled_from([0, 3, 50]), window=st.sampled_from([1, 4, 90])
)
def test_no_record_of_an_orderly_log_is_ever_late(seed: int, partitions: int, lateness: int, window: int) -> None:
    """For any idle times, reading speeds and interleavings of the reports."""
    rng = Random(seed)
    log = world(rng, partitions, lateness)
    readers = [Reader(number, log, lateness, window) for number in range(partitions)]
    upto = max(event.arrived for events in log for event in events) + 500
    queues = [[*frames_of(rng, reader, upto), reader.flush()] for reader in readers]
    merged = initial_watermark(partitions)
    for sent, closed in interleaved(rng, queues):
        assert all(at > merged.watermark for at in closed)
        report(merged, sent)
    assert merged.watermark == MAX_WATERMARK


@settings(max_examples=200)
@given(seed=SEEDS, partitions=st.integers(2, 4))
def test_records_are_released_while_one_source_is_idle_and_renews_its_idleness(seed: int, partitions: int) -> None:
    """The watermark follows the others up to the idle one's next pending page, one report behind them."""
    rng = Random(seed)
    lateness, window = 5, 30
    log = world(rng, partitions, lateness)
    idle = rng.randrange(partitions)
    del log[idle][rng.randint(0, len(log[idle])) :]
    for number in range(partitions):
        if number != idle:  # all others continue, and long enough
            log[number] += [Event(now, now, number) for now in range(20_000 + number, 21_000, 10)]
    readers = [Reader(number, log, lateness, window) for number in range(partitions)]
    merged = initial_watermark(partitions)
    report(merged, readers[idle].take(len(log[idle]))[0])
    bound = min(readers[idle].open, default=MAX_WATERMARK) - 1
    since = 0
    for now in range(19_000, 21_100, 100):
        for number in rng.sample(range(partitions), partitions):
            reader = readers[number]
            if number == idle:
                sent = reader.claim(Claim(now, since))
                assert sent is not None
                report(merged, sent)
            else:
                report(merged, reader.take(ends(log, now)[number] - reader.read)[0])
        # What was read before the sample of a report is released, at the latest with the next report.
        others = [reader.watermark for reader in readers if reader.number != idle]
        behind = min(others) - 250 if now > 20_300 else MIN_WATERMARK
        assert merged.watermark >= min(bound, behind)
        since = now
    assert merged.watermark >= min(bound, 20_970 - lateness - 120)


def test_idleness_sampled_after_the_pause_would_advance_the_watermark_past_unread_records() -> None:
    """Why `observed_offsets` precede the time at which nothing was unread; and the simulation would notice."""
    log = [[Event(10, 10, 0), Event(300, 300, 0)], [Event(5, 5, 1), Event(200, 200, 1)]]
    readers = [Reader(number, log, 0, 1) for number in range(2)]
    merged = initial_watermark(2)
    for reader in readers:
        report(merged, reader.take(1)[0])
    report(merged, readers[1].report(SourceIdleness(ends(log, 300), MAX_WATERMARK)))
    report(merged, readers[0].take(1)[0])
    readers[1].take(1)
    assert min(readers[1].open) <= merged.watermark
