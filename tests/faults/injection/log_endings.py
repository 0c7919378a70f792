"""Faults after which the system cannot go on with its log: every process that reads it ends and names the reason."""

import re
import time
from collections.abc import Callable
from typing import Final

import msgspec
from kafka.admin import NewTopic
from kafka.errors import KafkaError

from prectr.state.errors import PrectrError
from prectr.stream.ordering.frames import FRAME_FORMAT
from tests.faults.injection.restart import EXIT_TIMEOUT, await_reports
from tests.faults.system import STREAMS, TRAINER, LiveSystem

_CREATE_TIMEOUT: Final = 30.0
_START_TIMEOUT: Final = 60.0
_NEW_EVENTS: Final = 20


def topic_recreated(system: LiveSystem) -> str:
    """The topic gets other events than it had."""
    topic = system.topics.events
    start_all(system)
    system.connection.call_admin(lambda admin: admin.delete_topics([topic]))
    deadline = time.monotonic() + _CREATE_TIMEOUT
    while True:
        try:
            system.connection.call_admin(
                lambda admin: admin.create_topics([NewTopic(topic, system.live.partitions, 1)])
            )
            break
        except (KafkaError, PrectrError):
            # The deletion may not be over yet.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    producer = system.connection.producer()
    for number, line in enumerate(system.feed.sent_lines[-_NEW_EVENTS:]):
        producer.send(topic, value=line, partition=number % system.live.partitions)
    producer.close(timeout=10)
    _expect_end(system, STREAMS, f"topic {re.escape(topic)} was deleted and recreated")
    return "search-events is deleted and created again: both stream processes name it and end"


def partitions_added(system: LiveSystem) -> str:
    topic, before = system.topics.events, system.live.partitions
    after = before + system.rng.randint(1, 3)
    start_all(system)
    system.connection.call_admin(lambda admin: admin.create_partitions({topic: after}))
    _expect_end(system, STREAMS, f"topic {re.escape(topic)} has {after} partitions, and had {before}")
    return f"search-events gets {after} partitions in place of {before}: both stream processes name it and end"


def forged_frame(system: LiveSystem) -> str:
    value = system.rng.choice((b"", b"rubbish", bytes((FRAME_FORMAT,)) + msgspec.msgpack.encode([1 << 40, 0, True])))
    topic, names = system.rng.choice(((system.topics.joined_pages, STREAMS), (system.topics.examples, (TRAINER,))))
    partition = system.rng.randrange(system.live.partitions)
    start_all(system)
    producer = system.connection.producer()
    offset = producer.send(topic, value=value, partition=partition).get(10).offset
    producer.close(timeout=10)
    _expect_end(system, names, f"{re.escape(topic)} partition {partition} offset {offset}: ")
    what = f"{topic.removeprefix(system.live.prefix)} gets a record of {len(value)} bytes from another program"
    return f"{what}: {'both stream processes name' if names == STREAMS else 'the trainer names'} its offset and end"


def start_all(system: LiveSystem) -> None:
    """Start the processes, and wait until they have read everything."""
    for name in (*STREAMS, TRAINER):
        system.start(name)
    logged = ((STREAMS[0], "open at offset"), (STREAMS[1], "open at offset"), (TRAINER, "resumes from checkpoint"))
    if not system.wait_until(
        lambda: all(words in system.live.stderr_of(system.running[name]) for name, words in logged), _START_TIMEOUT
    ):
        raise AssertionError(f"not every process was at work after {_START_TIMEOUT:.0f} s")


def _expect_end(system: LiveSystem, names: tuple[str, ...], words: str) -> None:
    """Each of these processes must end and say so; the others are stopped."""
    system.wait_until(
        lambda: all(system.running[name].poll() is not None for name in names), EXIT_TIMEOUT, may_end=names
    )
    for name in names:
        stderr = system.wait_for_end(name, 1, 0)
        last = stderr.strip().splitlines()[-1]
        if not re.search(words, last):
            raise AssertionError(f"{name} ended, and did not say {words!r}: {last}")
    await_reports(system)
    system.stop_all()


LOG_ENDINGS: Final[dict[str, Callable[[LiveSystem], str]]] = {
    "topic-recreated": topic_recreated,
    "partitions-added": partitions_added,
    "forged-frame": forged_frame,
}
"""By kind; each returns what was done, in words."""
