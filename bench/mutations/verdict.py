"""Whether every event of a run has one outcome: the system's counts beside those of the benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from bench.mutations.live_run import LiveResult
from bench.mutations.memory_trace import MemorySample
from bench.mutations.oracle import Expectation
from bench.mutations.processes import STREAMS, TRAINER
from bench.mutations.topic_contents import ContentSum, DeadLettersTopic, EventsTopic
from prectr.stream.join.outcomes import Outcomes

MAX_GROWTH: Final = 1.25
DIGESTS: Final = ("examples_sha256", "aggregates_sha256", "weights_sha256")


class TopicContents(NamedTuple):
    """What lies on the topics of a system; examples: their number."""

    events: EventsTopic
    dead_letters: DeadLettersTopic
    examples: int


class Check(msgspec.Struct, frozen=True):
    """One comparison: what should be, and what was found."""

    name: str
    expected: str
    found: str

    @property
    def holds(self) -> bool:
        """Whether both are equal."""
        return self.expected == self.found


def check(name: str, expected: object, found: object) -> Check:
    """A comparison, with numbers as they are printed."""
    return Check(name, _text(expected), _text(found))


def conservation_checks(live: LiveResult, sent: ContentSum, topics: TopicContents) -> list[Check]:
    """Compare what was sent with what lies on the topics, and that with the outcomes which the system counted."""
    outcomes = live_outcomes(live)
    pages, clicks = outcomes.pages, outcomes.clicks
    rejected = pages.dead_letter + clicks.dead_letter + outcomes.unreadable
    dead_letters = topics.dead_letters
    return [
        check("lines of the files: sent by the loader", live.lines, live.loaded),
        check("lines and direct records: on the topic", live.lines + live.direct, len(topics.events.hashes)),
        check("their bytes (sum of hashes)", f"{sent.total:016x}", f"{topics.events.content.total:016x}"),
        check("records on the topic: outcomes", len(topics.events.hashes), outcomes.records),
        check("sums of outcomes that do not balance", [], outcomes.imbalances()),
        check("pages still open, clicks still waiting", [0, 0], [pages.open, clicks.waiting]),
        check("events rejected: sources of dead letters", rejected, len(dead_letters.by_source)),
        check("dead letters that repeat a source", 0, dead_letters.repeated),
        check("dead letters without the key and value of their source", 0, dead_letters.strangers),
        check("pages emitted: examples on the topic", pages.emitted, topics.examples),
        check("records out of the total order", 0, live.report["late_records"]),
    ]


def oracle_checks(live: LiveResult, dead_letters: DeadLettersTopic, expected: Sequence[Expectation]) -> list[Check]:
    """Compare the outcomes, and which records are dead letters, with the oracle's."""
    places = {(partition, offset) for partition, each in enumerate(expected) for offset in each.dead}
    outcomes = sum((each.outcomes for each in expected), Outcomes())
    return [
        check("outcomes: the oracle's", _counts(outcomes), _counts(live_outcomes(live))),
        check("dead letters of other records than the oracle's", 0, len(places ^ set(dead_letters.by_source))),
    ]


def replay_checks(live: LiveResult, replay: dict[str, Any]) -> list[Check]:
    """Compare with the embedded replay of the records."""
    return [
        check(
            "outcomes: the replay's",
            _counts(msgspec.convert(replay["outcomes"], Outcomes)),
            _counts(live_outcomes(live)),
        ),
        *(check(f"{name}: the replay's", replay[name], live.report[name]) for name in DIGESTS),
    ]


def process_checks(runs: Sequence[LiveResult], logs: Sequence[Path]) -> list[Check]:
    """Whether every process ended with exit code 0, and none reported a mistake in the program."""
    codes = sorted({process.code for run in runs for process in run.processes})
    words = ("Traceback", "internal error")
    failed = [log.name for log in logs if any(word in log.read_text(errors="replace") for word in words)]
    return [check("exit codes", [0], codes), check("logs with a traceback", [], failed)]


def memory_checks(live: LiveResult) -> list[Check]:
    """Whether resident memory has stopped growing: the largest of the last quarter beside that of the second."""
    checks = []
    for name in (*STREAMS, TRAINER):
        second, last = quarter_peak(live.memory[name], 1), quarter_peak(live.memory[name], 3)
        grown = f"grown from {second:,.0f} to {last:,.0f} MB"
        flat = f"at most {MAX_GROWTH - 1:.0%} more"
        checks.append(
            check(
                f"memory of {name}, 2nd and last quarter of the records: {grown}",
                flat,
                flat if last <= MAX_GROWTH * second else "more",
            )
        )
    return checks


def quarter_peak(samples: Sequence[MemorySample], quarter: int) -> float:
    """Largest resident memory in a quarter, from 0, of the records that were processed while it was sampled."""
    last = max(sample.records for sample in samples)
    within = [each.resident for each in samples if quarter <= 4 * each.records / max(1, last) <= quarter + 1]
    return max(within, default=0.0)


def live_outcomes(live: LiveResult) -> Outcomes:
    """The outcomes that the system counted."""
    return msgspec.convert(live.report["outcomes"], Outcomes)


def _counts(outcomes: Outcomes) -> str:
    """All counts in one line: pages, clicks, unreadable."""
    parts = (msgspec.structs.astuple(outcomes.pages), msgspec.structs.astuple(outcomes.clicks))
    return " | ".join([*(" ".join(map(str, part)) for part in parts), str(outcomes.unreadable)])


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
