"""Whether a scenario has come out as if nothing had happened."""

import json
import os
from collections import Counter
from pathlib import Path

import msgspec
from kafka import TopicPartition

from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from tests.kafka.live import Live, RunResult


def find_differences(live: Live, expected: RunResult) -> list[str]:
    """What differs from the embedded replay of the same log, in words; empty where nothing does."""
    actual = live.read_result()
    outcomes = msgspec.convert(actual.outcomes, Outcomes)
    problems = _example_differences(actual, expected)
    if outcomes.pages.emitted != len(actual.examples):
        problems.append(f"{outcomes.pages.emitted} pages were emitted, and {len(actual.examples)} came out")
    return problems + find_digest_differences(live, actual, expected)


def find_digest_differences(live: Live, actual: RunResult, expected: RunResult) -> list[str]:
    """What differs without a look at each example: their digests, and all that is counted."""
    outcomes = msgspec.convert(actual.outcomes, Outcomes)
    problems = [
        f"{name} is {value[:12]}…, the replay's is {expected.hashes[name][:12]}…"
        for name, value in actual.hashes.items()
        if value != expected.hashes[name]
    ]
    if actual.outcomes != expected.outcomes:
        problems.append(f"outcomes are {actual.outcomes}, the replay's are {expected.outcomes}")
    problems += outcomes.imbalances()
    problems += _dead_letter_problems(live, outcomes)
    problems += _tracebacks(live)
    problems += _leftover_processes(live)
    return problems


def _example_differences(actual: RunResult, expected: RunResult) -> list[str]:
    if actual.examples == expected.examples:
        return []
    ours, theirs = (
        Counter(json.dumps(page, sort_keys=True) for page in result.examples) for result in (actual, expected)
    )
    more, fewer = (ours - theirs).total(), (theirs - ours).total()
    if more or fewer:
        return [f"of {len(expected.examples)} examples {fewer} are missing, and {more} are too many or differ"]
    pairs = zip(actual.examples, expected.examples, strict=True)
    first = next(index for index, (ours_here, theirs_here) in enumerate(pairs) if ours_here != theirs_here)
    return [f"the examples are the replay's, but in another order from line {first + 1} on"]


def _dead_letter_problems(live: Live, outcomes: Outcomes) -> list[str]:
    """Each event that was refused must lie there once."""
    topic = Topics(live.prefix).dead_letters
    consumer = Connection(live.bootstrap, connect_timeout=30).consumer(group_id=None)
    counts_by_source: Counter[tuple[bytes, bytes]] = Counter()
    try:
        partitions = [TopicPartition(topic, number) for number in range(live.partitions)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    headers = dict(record.headers[:5])
                    counts_by_source[headers["partition"], headers["offset"]] += 1
    finally:
        consumer.close()
    rejected = outcomes.pages.dead_letter + outcomes.clicks.dead_letter + outcomes.unreadable
    twice = sum(count > 1 for count in counts_by_source.values())
    if twice or len(counts_by_source) != rejected:
        return [
            f"{rejected} events were rejected; {len(counts_by_source)} are dead letters, {twice} of them more than once"
        ]
    return []


def _tracebacks(live: Live) -> list[str]:
    return [
        f"{path.name} has a traceback or reports a mistake in the program"
        for path in sorted((live.folder / "stderr").iterdir())
        if any(words in path.read_text(errors="replace") for words in ("Traceback", "internal error"))
    ]


def _leftover_processes(live: Live) -> list[str]:
    """Processes of this system that are still there."""
    problems = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if live.prefix.encode() in arguments:
            problems.append(
                f"process {entry.name} is still there: {b' '.join(arguments).decode(errors='replace')[:200]}"
            )
    return problems
