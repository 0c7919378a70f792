"""Drives a `join` task of the live system without a broker: records in, time passes, frames out.

The producer only records: no transaction fails, and nothing was committed before.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

import prectr.stream.kafka.tasks.join_task
import prectr.stream.kafka.tasks.stateful_task
import prectr.stream.kafka.tasks.task
from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import EndOffsets, EndOffsetsSample, OffsetRange
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.tasks.join_task import JoinTask
from prectr.stream.kafka.tasks.task_context import PunctuationContext, TaskContext
from prectr.stream.kafka.transactions.committed_offsets import CommittedOffsets
from prectr.stream.kafka.transactions.producer import PendingOutput
from prectr.stream.ordering.frames import Frame, decode_frame

PARTITIONS = 3
OWN_PARTITION = 1
"""The task's partition."""
_GROUP = object()


class Sent(NamedTuple):
    topic: str
    partition: int | None
    value: bytes


class _RecordingProducer:
    """Accepts and records everything."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def commit(self, output: PendingOutput, *_: object) -> None:
        self.sent += [Sent(topic, partition, value) for topic, partition, _, value, _ in output.messages]

    def close(self) -> None: ...


class JoinTaskHarness:
    """The task of partition `OWN_PARTITION` of three; `offset` follows the last record that it was given."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, idle_timeout: float = 60.0) -> None:
        self._clock = 1_000.0
        tasks = prectr.stream.kafka.tasks
        for module in (tasks.task, tasks.stateful_task, tasks.join_task):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self._clock))
        self._transactions = _RecordingProducer()
        monkeypatch.setattr(tasks.task, "recover_and_open", lambda *_: self._transactions)
        monkeypatch.setattr(tasks.stateful_task, "has_frames", lambda *_: False)
        self._frames_read = 0
        self.offset = 0
        config = PipelineConfig(partitions=PARTITIONS)
        connection = cast("Connection", SimpleNamespace(producer=lambda **_: None))
        no_commits = SimpleNamespace(fetch=lambda _: None)
        empty_log = SimpleNamespace(fetch_ranges=lambda partitions: dict.fromkeys(partitions, OffsetRange(0, 0)))
        self.task = JoinTask.open(
            TaskContext(
                connection=connection,
                topics=Topics(),
                group="group",
                partition=OWN_PARTITION,
                config=config,
                state_dir=folder,
                cluster="cluster",
                topic_id="topic id",
                snapshots=None,
                end_offsets=cast("EndOffsets", empty_log),
                committed_offsets=cast("CommittedOffsets", no_commits),
                label=LexicalLabeller(),
                idle_timeout=idle_timeout,
            )
        )

    def process(self, *lines: bytes) -> list[Frame]:
        """Process records and return the frames that the task sends."""
        records: list[Any] = []
        for line in lines:
            records.append(
                SimpleNamespace(
                    offset=self.offset,
                    value=line,
                    key=None,
                    headers=[],
                    leader_epoch=0,
                    timestamp=round(self._clock * 1000),
                )
            )
            self.offset += 1
        self.task.process(records, _GROUP)
        return self._frames()

    def advance_time(self, seconds: float) -> None:
        """Let time pass."""
        self._clock += seconds

    def punctuate(self, sampled_ends: Sequence[int], ends: Sequence[int] | None = None) -> list[Frame]:
        """Punctuate with a sample of the end offsets, previous and current; returns the frames that the task sends."""
        now = list(sampled_ends if ends is None else ends)
        self.task.punctuate(PunctuationContext(_GROUP, EndOffsetsSample(list(sampled_ends), now), self.offset))
        return self._frames()

    def punctuate_without_sample(self) -> list[Frame]:
        """Punctuate in a round in which the end offsets were not sampled."""
        self.task.punctuate(PunctuationContext(_GROUP, None, -1))
        return self._frames()

    def close(self) -> None:
        self.task.close()

    def _frames(self) -> list[Frame]:
        """Return the frames sent since the last call, at most one per partition."""
        new = [sent for sent in self._transactions.sent[self._frames_read :] if sent.topic == Topics().joined_pages]
        self._frames_read = len(self._transactions.sent)
        partitions = [sent.partition for sent in new]
        assert partitions == sorted(set(partitions), key=lambda number: number or 0)
        return [decode_frame(sent.value, "here") for sent in new]
