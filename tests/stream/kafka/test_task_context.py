"""What a task writes into its store to recognise it is what it reads back."""

from pathlib import Path
from typing import Any, cast

from kafka import TopicPartition

from prectr.state.identity import decode_identity, encode_identity
from prectr.stream.config import PipelineConfig
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.tasks.task_context import TaskContext


def test_a_stored_identity_equals_that_of_the_task_that_wrote_it(tmp_path: Path) -> None:
    unused = cast("Any", None)
    context = TaskContext(
        connection=unused,
        topics=Topics(),
        group="group",
        partition=1,
        config=PipelineConfig(half_lives=(60.0, 3600.0)),
        state_dir=tmp_path,
        cluster="cluster",
        topic_id="topic id",
        snapshots=None,
        end_offsets=unused,
        committed_offsets=unused,
        label=unused,
        idle_timeout=60.0,
    )
    identity = context.identity("join", TopicPartition("search-events", 1))
    stored = decode_identity(encode_identity(identity))
    assert stored == identity
    assert identity.diff(stored) == ""
    assert stored.config["half_lives"] == [60.0, 3600.0]
