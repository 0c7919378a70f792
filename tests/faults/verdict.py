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
from tests.kafka.live import Live, Result


def judge(live: Live, expected: Result) -> list[str]:
    """What differs from the embedded replay of the same log, in words; empty where nothing does."""
    found = live.learned()
    outcomes = msgspec.convert(found.outcomes, Outcomes)
    wrong = _examples(found, expected)
    wrong += [
        f"{name} is {value[:12]}…, the replay's is {expected.hashes[name][:12]}…"
        for name, value in found.hashes.items()
        if value != expected.hashes[name]
    ]
    if found.outcomes != expected.outcomes:
        wrong.append(f"outcomes are {found.outcomes}, the replay's are {expected.outcomes}")
    wrong += outcomes.imbalance()
    if outcomes.impressions.emitted != len(found.examples):
        wrong.append(f"{outcomes.impressions.emitted} pages were emitted, and {len(found.examples)} came out")
    wrong += _dead_letters(live, outcomes)
    wrong += _tracebacks(live)
    wrong += _left_over(live)
    return wrong


def _examples(found: Result, expected: Result) -> list[str]:
    if found.examples == expected.examples:
        return []
    ours, theirs = (
        Counter(json.dumps(page, sort_keys=True) for page in result.examples) for result in (found, expected)
    )
    more, fewer = (ours - theirs).total(), (theirs - ours).total()
    if more or fewer:
        return [f"of {len(expected.examples)} examples {fewer} are missing, and {more} are too many or differ"]
    pairs = zip(found.examples, expected.examples, strict=True)
    first = next(place for place, (ours_here, theirs_here) in enumerate(pairs) if ours_here != theirs_here)
    return [f"the examples are the replay's, but in another order from line {first + 1} on"]


def _dead_letters(live: Live, outcomes: Outcomes) -> list[str]:
    """Each event that was refused must lie there once."""
    topic = Topics(live.prefix).dead_letters
    consumer = Connection(live.bootstrap, wait=30).consumer(group_id=None)
    places: Counter[tuple[bytes, bytes]] = Counter()
    try:
        partitions = [TopicPartition(topic, number) for number in range(live.partitions)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    headers = dict(record.headers[:5])
                    places[headers["partition"], headers["offset"]] += 1
    finally:
        consumer.close()
    refused = outcomes.impressions.dead_letter + outcomes.clicks.dead_letter + outcomes.unreadable
    twice = sum(count > 1 for count in places.values())
    if twice or len(places) != refused:
        return [f"{refused} events were refused; {len(places)} are dead letters, {twice} of them more than once"]
    return []


def _tracebacks(live: Live) -> list[str]:
    return [
        f"{path.name} holds a traceback or tells of a mistake in the program"
        for path in sorted((live.folder / "stderr").iterdir())
        if any(words in path.read_text(errors="replace") for words in ("Traceback", "a mistake in prectr itself"))
    ]


def _left_over(live: Live) -> list[str]:
    """Processes of this system that are still there."""
    wrong = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if live.prefix.encode() in words:
            wrong.append(f"process {entry.name} is still there: {b' '.join(words).decode(errors='replace')[:200]}")
    return wrong
