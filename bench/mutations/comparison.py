"""Compares a system that has ended with what was sent to it and with the oracle."""

from pathlib import Path
from typing import NamedTuple

from bench.mutations.live_run import LiveRun
from bench.mutations.oracle import expect
from bench.mutations.system import PARTITIONS, System
from bench.mutations.topic_contents import count_examples, read_dead_letters, read_events
from bench.mutations.verdict import Check, TopicContents, conservation_checks, oracle_checks


class Comparison(NamedTuple):
    """Result of a comparison. unjudged: number of values whose validity the oracle took from the system."""

    checks: list[Check]
    topics: TopicContents
    unjudged: int


def compare(system: System, run: LiveRun, folder: Path) -> Comparison:
    """Read the topics of a system, and check that every record has one outcome; folder: for copies of the records."""
    names, connection = system.topics, system.connection
    events = read_events(connection, names.events, PARTITIONS, folder)
    dead_letters = read_dead_letters(connection, names.dead_letters, PARTITIONS, events)
    topics = TopicContents(events, dead_letters, count_examples(connection, names.examples, PARTITIONS))
    expected = expect(events, dead_letters)
    checks = conservation_checks(run.result, run.content, topics)
    checks += oracle_checks(run.result, dead_letters, expected)
    return Comparison(checks, topics, sum(each.unjudged for each in expected))
