"""Loads a log into Kafka: each line as it is, keyed by its user."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from stream.decode import decode_lines
from stream.events import Rejected
from stream.kafka.client import Connection
from stream.kafka.topics import Topics, partition_count
from stream.partition import partitions_of
from stream.readers import open_log

_CLOSE_SECONDS: Final = 30


def load(
    paths: Sequence[str],
    connection: Connection,
    topics: Topics,
    *,
    speed: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Send every line of the log to `search-events`; returns how many.

    speed: event-time seconds a second; None for as fast as it goes. A user's partition is Kafka's own; a line
    without a user goes to partition 0.

    Raises:
        PrectrError: the log cannot be read, or the broker does not take it.
    """
    log = open_log(paths)
    total = sum(file.identity.size for file in log)
    partitions = partition_count(connection, topics.events)
    sent = read = 0
    first: tuple[int, float] | None = None
    with ExitStack() as stack:
        stack.enter_context(connection.errors())
        producer = connection.producer()
        stack.callback(producer.close, timeout=_CLOSE_SECONDS)
        refused: list[BaseException] = []
        for file in log:
            for batch in file.batches(batch_lines=1024):
                events = decode_lines(batch.lines)
                users = [event.user_id for event in events]
                for event, line, user, partition in zip(
                    events, batch.lines, users, partitions_of(users, partitions), strict=True
                ):
                    if speed is not None and not isinstance(event, Rejected):
                        first = first or (event.ts, time.monotonic())
                        producer_waits = first[1] + (event.ts - first[0]) / 1000 / speed - time.monotonic()
                        if producer_waits > 0:
                            time.sleep(min(producer_waits, 60.0))
                    key = None if user is None else user.encode()
                    future = producer.send(topics.events, value=line, key=key, partition=partition)
                    future.add_errback(refused.append)
                    sent += 1
                if refused:
                    raise refused[0]
                progress(read + file.bytes_read, total)
                if stop():
                    break
            read += file.identity.size
            if stop():
                break
        producer.flush()
        if refused:
            raise refused[0]
    return sent
