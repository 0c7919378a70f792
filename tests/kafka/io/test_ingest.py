"""`prectr ingest` on a real Kafka: foreign topics become events, each exactly once, whatever is killed."""

import json
import random
import signal
import time
from collections import Counter, defaultdict
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from prectr.stream.events.contract import InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.kafka.client.topics import Topics
from testkit.command import prectr, write_log
from tests.kafka.foreign import (
    HEADERS,
    Sent,
    click_record,
    committed_records,
    create_topic,
    page_record,
    send_round_robin,
    with_damage,
    write_mappings,
)
from tests.kafka.live import Live, replay_log
from tests.oracle.contract import partition_of

pytestmark = pytest.mark.usefixtures("broker")

PAGE_PARTITIONS, CLICK_PARTITIONS = 3, 2
DAMAGED_PAGES = [b"{", b'{"payload": {"op": "c", "after": {"visitor": "v"}}}', b"\x00\x00", b"\xff\xfe"]
DAMAGED_CLICKS = [b"[]", b'{"search": "s", "visitor": "v", "sku": "i", "clicked_at": "yesterday"}', None]
REASONS = {
    b"{": "not_json",
    DAMAGED_PAGES[1]: "missing_request_id",
    b"\x00\x00": "not_framed",
    b"\xff\xfe": "not_json",
    b"[]": "not_an_object",
    DAMAGED_CLICKS[1]: "invalid_time",
    b"": "no_value",
}


class World:
    """A log, and its events in two foreign topics with damaged records between them."""

    def __init__(self, live: Live, pages: int) -> None:
        log = live.folder / "simulated.jsonl"
        done = prectr("simulate", "--pages", str(pages), "--days", "0.02", "--seed", "5", "--out", log)
        assert done.returncode == 0, done.stderr
        lines = list(dict.fromkeys(log.read_bytes().splitlines()))
        valid = [
            line for line, event in zip(lines, decode_lines(lines), strict=True) if not isinstance(event, InvalidEvent)
        ]
        self.log = write_log(live.folder / "equal.jsonl", valid)
        self.events = events = [json.loads(line) for line in valid]
        self.pages, self.clicks = f"{live.prefix}shop-pages", f"{live.prefix}shop-clicks"
        create_topic(live.bootstrap, self.pages, PAGE_PARTITIONS)
        create_topic(live.bootstrap, self.clicks, CLICK_PARTITIONS)
        page_values = with_damage(
            [event for event in events if event["type"] == "impression"], page_record, DAMAGED_PAGES, 40
        )
        click_values = with_damage(
            [event for event in events if event["type"] == "click"], click_record, DAMAGED_CLICKS, 30
        )
        self.sent = [
            *send_round_robin(live.bootstrap, self.pages, PAGE_PARTITIONS, page_values),
            *send_round_robin(live.bootstrap, self.clicks, CLICK_PARTITIONS, click_values),
        ]
        page_mapping, click_mapping = write_mappings(live.folder)
        self.inputs = f"{self.pages}={page_mapping}", f"{self.clicks}={click_mapping}"


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
        (sent.topic, sent.partition, sent.offset, sent.value or b"", REASONS[sent.value or b""])
        for sent in world.sent
        if sent.event is None
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
    """Each crash lets some transactions through. The joined result is that of the same log, replayed."""
    live.create()
    world = World(live, pages=1_200)
    crashes = [("after_produce", 3), ("before_commit", 6), ("after_commit", 4), ("before_commit", 1)]
    for crash in crashes:
        process = live.start_ingest(*world.inputs, "--until-end", crash=crash)
        assert process.wait(live.timeout) == -signal.SIGKILL
    rng = random.Random(7)
    for _ in range(3):
        process = live.start_ingest(*world.inputs, "--until-end")
        _wait_for_events(live, rng.randrange(20, 200))
        live.kill(process)
    live.wait_for_end(live.start_ingest(*world.inputs, "--until-end"))
    assert_ingested_exactly_once(live, world)

    live.stream(1, "--flush")
    result = live.train_and_read("--flush")
    expected = replay_log(live.folder, world.log)
    assert result.outcomes == expected.outcomes


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
