"""The faults of a drill. Each is what happens to a system at night; none leaves a note."""

import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from kafka import TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from prectr.state.errors import PrectrError
from prectr.stream.kafka.client.topics import partition_count
from testkit.command import PRECTR
from tests.faults.drill.environment import Drill


def broker_killed(drill: Drill) -> str:
    drill.kill_broker(signal.SIGKILL)
    return "the broker was killed"


def broker_frozen(drill: Drill) -> str:
    drill.kill_broker(signal.SIGSTOP)
    return "the broker was stopped by SIGSTOP: its port takes connections, and nothing answers"


def broker_moved(drill: Drill) -> str:
    drill.kill_broker(signal.SIGKILL)
    properties = drill.folder / "kafka" / "server.properties"
    text = properties.read_text()
    properties.write_text(
        text.replace(
            f"advertised.listeners=PLAINTEXT://{drill.bootstrap}", "advertised.listeners=PLAINTEXT://127.0.0.1:9"
        )
    )
    drill.start_broker()
    return "the broker was restarted with advertised.listeners that nobody reaches"


def topic_recreated(drill: Drill) -> str:
    topic = drill.topics.events
    partitions = partition_count(drill.connection, topic)
    drill.connection.call_admin(lambda admin: admin.delete_topics([topic]))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(KafkaError, PrectrError):
            drill.connection.call_admin(lambda admin: admin.create_topics([NewTopic(topic, partitions, 1)]))
            break
        time.sleep(0.1)
    return "search-events was deleted and created again"


def partitions_added(drill: Drill) -> str:
    count = partition_count(drill.connection, drill.topics.events) + 2
    drill.connection.call_admin(lambda admin: admin.create_partitions({drill.topics.events: count}))
    return f"search-events got {count} partitions"


def offsets_reset(drill: Drill) -> str:
    drill.stop_run()
    partitions = range(partition_count(drill.connection, drill.topics.events))
    offsets = {TopicPartition(drill.topics.events, number): OffsetAndMetadata(0, "", -1) for number in partitions}
    drill.connection.call_admin(lambda admin: admin.alter_group_offsets("prectr-join", offsets))
    drill.start_run()
    return "prectr run was stopped, the offsets of group prectr-join were reset to 0, and it was started again"


def producer_rejected(drill: Drill) -> str:
    drill.start_producer("rejected")
    return "the producer was released anew and wraps each event in schema and payload"


def producer_misplaced(drill: Drill) -> str:
    drill.start_producer("misplaced")
    return "the producer was released anew and places clicks by CRC32"


def producer_orphans(drill: Drill) -> str:
    drill.start_producer("orphans")
    return "the producer was released anew, and its clicks have other request ids than the pages"


def producer_stopped(drill: Drill) -> str:
    drill.stop("producer")
    return "the producer was killed"


def open_transaction(drill: Drill) -> str:
    drill.spawn("other-program", [PRECTR[0], "-m", "tests.faults.drill.open_transaction", drill.bootstrap])
    return "another program keeps a transaction open on search-events"


def forged_frame(drill: Drill) -> str:
    producer = drill.connection.producer()
    offset = producer.send(drill.topics.joined_pages, b"{}", partition=1).get(10).offset
    producer.close()
    return f"another program wrote a record to joined-pages, partition 1 offset {offset}"


def foreign_worker(drill: Drill) -> str:
    config = drill.folder / "other-settings.toml"
    config.write_text('attribution_window = "10m"\n')
    command = [*PRECTR, "stream", "--bootstrap", drill.bootstrap, "--state-dir", str(drill.folder / "other-worker")]
    drill.spawn("other-worker", [*command, "--config", str(config)])
    return "a colleague started a third stream worker with another attribution window; its log is other-worker.log"


def checkpoint_damaged(drill: Drill) -> str:
    drill.stop_run()
    for folder in sorted((drill.run_dir / "checkpoints").glob("0*")):
        largest = max((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    drill.start_run()
    return "prectr run was stopped, a file of every checkpoint was cut short, and it was started again"


FAULTS: Final[Mapping[str, Callable[[Drill], str]]] = {
    each.__name__: each
    for each in (
        broker_killed, broker_frozen, broker_moved, topic_recreated, partitions_added, offsets_reset,
        producer_rejected, producer_misplaced, producer_orphans, producer_stopped, open_transaction, forged_frame,
        foreign_worker, checkpoint_damaged,
    )
}  # fmt: skip
"""By name; each returns what was done, in words."""


DRAWN: Final = 10
"""Faults of a series of drills."""


def draw(seed: int) -> list[str]:
    """Ten different faults, in an order that the seed decides."""
    return random.Random(seed).sample(sorted(FAULTS), DRAWN)
