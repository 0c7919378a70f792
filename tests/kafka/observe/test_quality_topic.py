"""What a trainer publishes of its quality adds up to its report, however often it dies on the way."""

import json
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from prectr.model.quality.quality import SEGMENTS
from prectr.model.quality.record import QualityRecord, decode_record
from prectr.model.quality.sketch import QualitySketch
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.quality_producer import PARTITION
from tests.kafka.live import Live
from tests.kafka.worlds import simulated

pytestmark = pytest.mark.usefixtures("broker")


def records(live: Live) -> list[QualityRecord]:
    """Everything in the topic, in its order; none of it anywhere but in one partition."""
    consumer = Connection(live.bootstrap).consumer(group_id=None)
    partitions = [TopicPartition(Topics(live.prefix).quality, number) for number in range(live.partitions)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    assert [number for number, partition in enumerate(partitions) if ends[partition]] == [PARTITION]
    found: list[Any] = []
    while len(found) < ends[partitions[PARTITION]]:
        for messages in consumer.poll(timeout_ms=200).values():
            found += messages
    consumer.close()
    return [decode_record(message.key, message.value) for message in found]


def merged(found: list[QualityRecord]) -> dict[str, QualitySketch]:
    """The last record of each (run, rank, sequence), summed."""
    last = {record.key: record for record in found}
    parts = {name: QualitySketch.total(each.sketches()[name] for each in last.values()) for name in SEGMENTS}
    return {"all": QualitySketch.total(parts.values()), **parts}


def report_of(live: Live) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((live.folder / "train" / "report.json").read_bytes())
    return report


def assert_equal_to_report(live: Live, found: list[QualityRecord]) -> None:
    report = report_of(live)
    whole = merged(found)
    assert whole["all"].pages == report["pages"] > 0
    for name in ("auc", "gauc", "log_loss", "normalized_entropy", "calibration"):
        assert getattr(whole["all"], name) == report[name]
        for segment in SEGMENTS:
            assert getattr(whole[segment], name) == report["segments"][segment][name]


def test_the_records_of_a_trainer_add_up_to_its_report_to_the_last_bit(live: Live, tmp_path: Path) -> None:
    live.create()
    live.load(simulated(tmp_path, pages=600))
    live.stream(1, "--flush")
    live.wait_for_end(live.start_train("--until-end", "--flush"))
    found = records(live)
    assert_equal_to_report(live, found)
    assert len({record.run for record in found}) == 1
    assert all(record.run.startswith("lr-") and record.rank == 0 and record.model == "lr" for record in found)


@pytest.mark.parametrize("crash", [("checkpoint", 3), ("published", 2)])
def test_a_trainer_that_is_killed_publishes_on_and_nothing_is_lost_or_another(
    crash: tuple[str, int], live: Live, tmp_path: Path
) -> None:
    """Nothing is published before its checkpoint is in place; published windows are never withdrawn."""
    live.create()
    live.load(simulated(tmp_path, pages=3_000))
    live.stream(1, "--flush")
    live.wait_for_end(live.start_train("--checkpoint-interval", "0", crash=crash), code=-9)
    before = records(live)
    report = report_of(live)
    live.wait_for_end(live.start_train("--until-end", "--flush", "--checkpoint-interval", "0"))
    found = records(live)
    assert 0 < merged(before)["all"].pages < merged(found)["all"].pages
    assert merged(before)["all"].pages <= report["pages"]
    assert_equal_to_report(live, found)
    pages: dict[bytes, int] = {}
    for record in found:
        now = sum(sketch.pages for sketch in record.sketches().values())
        assert now >= pages.get(record.key, 0)
        pages[record.key] = now


def test_a_topic_that_is_missing_stops_nothing_and_gets_everything_once_it_is_there(live: Live, tmp_path: Path) -> None:
    live.create()
    live.load(simulated(tmp_path, pages=600))
    live.stream(1, "--flush")
    topic = Topics(live.prefix).quality
    Connection(live.bootstrap).call_admin(lambda admin: admin.delete_topics([topic]))
    stderr = live.wait_for_end(live.start_train("--until-end", "--flush"))
    assert f"{topic}: quality cannot be published" in stderr
    assert "If the topic is missing, create it" in stderr
    report = report_of(live)
    assert report["pages"] == 600
    live.create()
    live.wait_for_end(live.start_train("--until-end", "--flush"))
    assert report_of(live)["weights_sha256"] == report["weights_sha256"]
    assert_equal_to_report(live, records(live))
