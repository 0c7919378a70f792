"""A `sessions` task of the live system without a broker: it is fed, time passes, and its frames are read.

What stands in for the broker only takes: no transaction fails, nothing was committed before.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

import prectr.stream.kafka.tasks.join_task
import prectr.stream.kafka.tasks.task
from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import LogEnds, Look, Span
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.tasks.join_task import SessionsTask
from prectr.stream.kafka.tasks.task import Place
from prectr.stream.kafka.transactions.producer import CommittedOffsets, Outbox
from prectr.stream.ordering.frames import Frame, decode_frame

PARTITIONS = 3
OURS = 1
"""The task's partition."""
_GROUP = object()


class Sent(NamedTuple):
    topic: str
    partition: int | None
    value: bytes


class _Transactions:
    """Takes everything."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def commit(self, outbox: Outbox, *_: object) -> None:
        self.sent += [Sent(topic, partition, value) for topic, partition, _, value, _ in outbox.messages]

    def close(self) -> None: ...


class LiveSessions:
    """The task of partition `OURS` of three. offset: behind the last record that it was given."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, idle_timeout: float = 60.0) -> None:
        self._now = 1_000.0
        for module in (prectr.stream.kafka.tasks.task, prectr.stream.kafka.tasks.join_task):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self._now))
        self._transactions = _Transactions()
        monkeypatch.setattr(prectr.stream.kafka.tasks.task, "open_transactions", lambda *_: self._transactions)
        self._read = 0
        self.offset = 0
        config = PipelineConfig(partitions=PARTITIONS)
        connection = cast("Connection", SimpleNamespace(producer=lambda **_: None))
        place = Place(connection, Topics(), "group", OURS, config, folder, "cluster", "topic id", None)
        offsets = cast("CommittedOffsets", SimpleNamespace(of=lambda _: None))
        log_ends = cast("LogEnds", SimpleNamespace(spans=lambda asked: dict.fromkeys(asked, Span(0, 0))))
        self.task = SessionsTask(place, log_ends, offsets, label=LexicalLabeller(), idle_timeout=idle_timeout)

    def take(self, *lines: bytes) -> list[Frame]:
        """Give it records; the frames that it sends."""
        records: list[Any] = []
        for line in lines:
            records.append(SimpleNamespace(offset=self.offset, value=line, key=None, headers=[]))
            self.offset += 1
        self.task.take(records, _GROUP)
        return self._frames()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    def look(self, seen: Sequence[int], ends: Sequence[int] | None = None) -> list[Frame]:
        """Let it look how far the logs reached a while ago, and reach now; the frames that it sends, if any."""
        now = list(seen if ends is None else ends)
        self.task.keep_up(_GROUP, Look(list(seen), now), self.offset)
        return self._frames()

    def no_look(self) -> list[Frame]:
        """The same where nobody has asked the broker just now."""
        self.task.keep_up(_GROUP, None, -1)
        return self._frames()

    def close(self) -> None:
        self.task.close()

    def _frames(self) -> list[Frame]:
        """By partition, each the only one since the last call; none where nothing was sent."""
        new = [sent for sent in self._transactions.sent[self._read :] if sent.topic == Topics().activity]
        self._read = len(self._transactions.sent)
        places = [sent.partition for sent in new]
        assert places == sorted(set(places), key=lambda place: place or 0)
        return [decode_frame(sent.value, "here") for sent in new]
