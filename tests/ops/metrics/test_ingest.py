"""The metrics of `prectr ingest`."""

import msgspec

from prectr.ops.metrics.ingest import ingest_metrics
from prectr.stream.kafka.ingest.ingest_task import IngestStatus

INGEST_STATUS = IngestStatus(
    topic="shop",
    partition=2,
    next_offset=70,
    lag=5,
    records=60,
    pages=40,
    clicks=15,
    emitted=99,
    dead_letters={"not_json": 4, "invalid_time": 1},
    left_out={"no_section_applies": 3},
    is_waiting=True,
    read_time=1_700_000_000_500,
)


def test_each_number_is_exported_by_topic_and_partition() -> None:
    found = {
        (sample.name, *(sample.labels[name] for name in sample.labels)): sample.value
        for metric in ingest_metrics([INGEST_STATUS])
        for sample in metric.samples
    }
    assert found == {
        ("prectr_ingest_records_total", "shop", "2"): 60,
        ("prectr_ingest_lag_records", "shop", "2"): 5,
        ("prectr_ingest_waiting", "shop", "2"): 1,
        ("prectr_ingest_timestamp_seconds", "shop", "2"): 1_700_000_000.5,
        ("prectr_ingest_events_total", "shop", "2", "page"): 40,
        ("prectr_ingest_events_total", "shop", "2", "click"): 15,
        ("prectr_ingest_dead_letters_total", "shop", "2", "not_json"): 4,
        ("prectr_ingest_dead_letters_total", "shop", "2", "invalid_time"): 1,
        ("prectr_ingest_left_out_total", "shop", "2", "no_section_applies"): 3,
    }


def test_what_is_not_known_yet_is_not_exported() -> None:
    status = msgspec.structs.replace(INGEST_STATUS, lag=None, read_time=None)
    names = {sample.name for metric in ingest_metrics([status]) for sample in metric.samples}
    assert names.isdisjoint({"prectr_ingest_lag_records", "prectr_ingest_timestamp_seconds"})
