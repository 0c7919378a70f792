"""`prectr ingest` on a real Kafka: foreign topics become events, each exactly once, whatever is killed."""

import json
import signal
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.kafka.client.topics import Topics
from testkit.command import prectr, write_log
from testkit.oracle.contract import partition_of
from tests.kafka.foreign import (
    HEADERS,
    Sent,
    as_avro,
    as_json,
    click_record,
    committed_records,
    create_topic,
    mixed,
    page_record,
    send_round_robin,
    write_click_schema,
    write_mappings,
)
from tests.kafka.live import Live
from tests.kit.stages.replays import replay_to_end

pytestmark = pytest.mark.usefixtures("broker")

PAGE_PARTITIONS, CLICK_PARTITIONS = 3, 2
DAMAGED_PAGES: list[tuple[bytes, str]] = [
    (b"{", "not_json"),
    (b'{"payload": {"op": "c", "after": {"visitor": "v"}}}', "missing_request_id"),
    (b"\x00\x00", "not_framed"),
    (b"\xff\xfe", "not_json"),
]
DAMAGED_CLICKS: list[tuple[bytes | None, str]] = [
    (b"[]", "not_an_object"),
    (b'{"search": "s", "visitor": "v", "sku": "i", "clicked_at": "yesterday"}', "invalid_time"),
    (None, "no_value"),
]
DAMAGED_AVRO_CLICKS: list[tuple[bytes | None, str]] = [
    (b'{"search": "s"}', "not_framed"),
    (b"\x00\x00\x00\x00\x07\x02a\x02b", "not_avro"),
    (None, "no_value"),
]


class World:
    """A log, and its events in two foreign topics with damaged records between them."""

    def __init__(self, live: Live, pages: int, *, avro_clicks: bool = False) -> None:
        log = live.folder / "simulated.jsonl"
        simulate(log, pages)
        lines = list(dict.fromkeys(log.read_bytes().splitlines()))
        decoded = zip(lines, decode_lines(lines), strict=True)
        valid = [line for line, event in decoded if not isinstance(event, InvalidEvent)]
        self.log = write_log(live.folder / "equal.jsonl", valid)
        self.events = events = [json.loads(line) for line in valid]
        pages_topic, clicks_topic = f"{live.prefix}shop-pages", f"{live.prefix}shop-clicks"
        create_topic(live.bootstrap, pages_topic, PAGE_PARTITIONS)
        create_topic(live.bootstrap, clicks_topic, CLICK_PARTITIONS)
        page_values = [(as_json(page_record(each)), each) for each in events if each["type"] == "impression"]
        encode = as_avro if avro_clicks else as_json
        click_values = [(encode(click_record(each)), each) for each in events if each["type"] == "click"]
        damaged_clicks = DAMAGED_AVRO_CLICKS if avro_clicks else DAMAGED_CLICKS
        self.sent = [
            *send_round_robin(live.bootstrap, pages_topic, PAGE_PARTITIONS, mixed(page_values, DAMAGED_PAGES, 40)),
            *send_round_robin(live.bootstrap, clicks_topic, CLICK_PARTITIONS, mixed(click_values, damaged_clicks, 30)),
        ]
        page_mapping, click_mapping = write_mappings(live.folder)
        self.inputs = [f"{pages_topic}={page_mapping}", f"{clicks_topic}={click_mapping}"]
        if avro_clicks:
            schema = write_click_schema(live.folder)
            self.inputs += ["--format", f"{clicks_topic}=avro-confluent", "--schema", f"{clicks_topic}={schema}"]


def simulate(log: Path, pages: int) -> None:
    """Write a log with an event every second."""
    done = prectr("simulate", "--pages", str(pages), "--days", "0.02", "--seed", "5", "--out", log)
    assert done.returncode == 0, done.stderr


def assert_ingested_exactly_once(live: Live, world: World) -> None:
    written = committed_records(live.bootstrap, Topics(live.prefix).events, live.partitions)
    assert Counter(_canonical(json.loads(record.value)) for records in written for record in records) == Counter(
        _canonical(event) for event in world.events
    )
    for number, records in enumerate(written):
        for record in records:
            user = json.loads(record.value)["user_id"]
            assert (record.key.decode(), number) == (user, partition_of(user, live.partitions))
        _assert_in_order_of_inputs([json.loads(record.value) for record in records], world.sent)
    dead_letters = [
        record
        for records in committed_records(live.bootstrap, Topics(live.prefix).dead_letters, live.partitions)
        for record in records
    ]
    found = [
        (dict(record.headers)["topic"].decode(), *_place(record), record.value, dict(record.headers)["reason"].decode())
        for record in dead_letters
    ]
    assert sorted(found) == sorted(
        (sent.topic, sent.partition, sent.offset, sent.value or b"", sent.reason)
        for sent in world.sent
        if sent.reason is not None
    )
    assert all(record.headers[-1] == HEADERS[0] for record in dead_letters)


def _place(record: Any) -> tuple[int, int]:
    headers = dict(record.headers)
    return int(headers["partition"]), int(headers["offset"])


def _canonical(event: dict[str, Any]) -> str:
    return json.dumps(event, sort_keys=True)


def _assert_in_order_of_inputs(events: list[dict[str, Any]], sent: list[Sent]) -> None:
    """Check that the events of each input partition are in its order."""
    places = {_canonical(each.event): each for each in sent if each.event is not None}
    last: dict[tuple[str, int], int] = defaultdict(lambda: -1)
    for event in events:
        place = places[_canonical(event)]
        assert place.offset > last[place.topic, place.partition]
        last[place.topic, place.partition] = place.offset


def test_kills_at_named_points_and_at_random(live: Live) -> None:
    """Each crash lets some transactions through. The join then gives the outcomes of the log in its own order."""
    live.create()
    world = World(live, pages=1_000)
    for crash in (("after_produce", 3), ("before_commit", 6), ("after_commit", 4)):
        process = live.start_ingest(*world.inputs, "--until-end", crash=crash)
        assert process.wait(live.timeout) == -signal.SIGKILL
    for more in (30, 300):
        process = live.start_ingest(*world.inputs, "--until-end")
        _wait_for_events(live, more)
        live.kill(process)
    live.wait_for_end(live.start_ingest(*world.inputs, "--until-end"))
    assert_ingested_exactly_once(live, world)
    written = committed_records(live.bootstrap, Topics(live.prefix).events, live.partitions)
    by_partition = write_log(live.folder / "written.jsonl", [each.value for records in written for each in records])
    config = PipelineConfig(partitions=live.partitions)
    found, expected = (
        replay_to_end([log], live.folder / f"replay-{log.stem}", config=config) for log in (by_partition, world.log)
    )
    assert found.outcomes == expected.outcomes
    assert expected.outcomes.clicks.joined > 500


@pytest.mark.several
def test_processes_share_the_partitions_and_replace_one_that_is_killed(live: Live) -> None:
    """The clicks are Avro behind a schema id."""
    live.create()
    world = World(live, pages=600, avro_clicks=True)
    processes = [live.start_ingest(*world.inputs, "--until-end") for _ in range(2)]
    _wait_for_events(live, 200)
    live.kill(processes[0])
    processes.append(live.start_ingest(*world.inputs, "--until-end"))
    for process in processes[1:]:
        live.wait_for_end(process)
    assert_ingested_exactly_once(live, world)


def _wait_for_events(live: Live, more: int) -> None:
    """Wait until search-events has grown by this much."""
    partitions = [TopicPartition(Topics(live.prefix).events, number) for number in range(live.partitions)]
    consumer = KafkaConsumer(bootstrap_servers=live.bootstrap)
    try:
        goal = sum(consumer.end_offsets(partitions).values()) + more
        deadline = time.monotonic() + 60
        while sum(consumer.end_offsets(partitions).values()) < goal and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        consumer.close()
