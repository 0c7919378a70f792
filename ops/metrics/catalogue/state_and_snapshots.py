"""Metrics of the section "State and snapshots"."""

from typing import Final

from prectr.ops.metrics.definition import MetricDefinition, MetricSection

_TASK: Final = ("stage", "partition")

RESTORE_REMAINING_RECORDS: Final = MetricDefinition(
    "prectr_restore_remaining_records",
    "gauge",
    _TASK,
    ("stream",),
    "Records left to restore until the state of the task reaches its committed offset.",
    "prectr_restore_remaining_records > 0",
)
RESTORE_SECONDS: Final = MetricDefinition(
    "prectr_restore_seconds",
    "gauge",
    _TASK,
    ("stream",),
    "Time that this process took to restore the task: snapshot download, then records, in seconds.",
    "max by (stage) (prectr_restore_seconds)",
)
RESTORED_RECORDS: Final = MetricDefinition(
    "prectr_restored_records_total",
    "counter",
    _TASK,
    ("stream",),
    "Records that the task has reprocessed, with output suppressed, since this process opened it.",
    "sum by (stage) (rate(prectr_restored_records_total[5m]))",
)
STORE_KEYS: Final = MetricDefinition(
    "prectr_store_keys",
    "gauge",
    _TASK,
    ("stream",),
    "Estimated number of keys in the RocksDB store of the task.",
    "sum by (stage) (prectr_store_keys)",
)
STORE_BYTES: Final = MetricDefinition(
    "prectr_store_bytes",
    "gauge",
    _TASK,
    ("stream",),
    "Size of the files of the RocksDB store of the task, in bytes.",
    "sum by (stage) (prectr_store_bytes)",
)
STORE_MEMORY_BYTES: Final = MetricDefinition(
    "prectr_store_memory_bytes",
    "gauge",
    _TASK,
    ("stream",),
    "Memory of block cache and memtables of the RocksDB store of the task, in bytes.",
    "sum by (instance) (prectr_store_memory_bytes)",
)
STORE_BLOCK_CACHE_HITS: Final = MetricDefinition(
    "prectr_store_block_cache_hits_total",
    "counter",
    _TASK,
    ("stream",),
    "Block cache hits of the RocksDB store since this process opened the task.",
    "rate(prectr_store_block_cache_hits_total[5m]) / (rate(prectr_store_block_cache_hits_total[5m]) + "
    "rate(prectr_store_block_cache_misses_total[5m]))",
)
STORE_BLOCK_CACHE_MISSES: Final = MetricDefinition(
    "prectr_store_block_cache_misses_total",
    "counter",
    _TASK,
    ("stream",),
    "Block cache misses of the RocksDB store since this process opened the task.",
    "sum by (stage) (rate(prectr_store_block_cache_misses_total[5m]))",
)
STORE_WRITE_STALL_SECONDS: Final = MetricDefinition(
    "prectr_store_write_stall_seconds_total",
    "counter",
    _TASK,
    ("stream",),
    "Time for which RocksDB has stalled writes since this process opened the task, in seconds.",
    "rate(prectr_store_write_stall_seconds_total[5m]) > 0.1",
)
SNAPSHOT_AGE_SECONDS: Final = MetricDefinition(
    "prectr_snapshot_age_seconds",
    "gauge",
    _TASK,
    ("stream",),
    "Age of the last snapshot of the task, in seconds.",
    "prectr_snapshot_age_seconds > 300",
)
SNAPSHOT_SECONDS: Final = MetricDefinition(
    "prectr_snapshot_seconds",
    "gauge",
    _TASK,
    ("stream",),
    "Duration of the last snapshot of the task, including its upload, in seconds.",
    "max by (stage) (prectr_snapshot_seconds)",
)
SNAPSHOT_BYTES: Final = MetricDefinition(
    "prectr_snapshot_bytes",
    "gauge",
    _TASK,
    ("stream",),
    "Size of the last snapshot of the task, including files uploaded before, in bytes.",
    "sum by (stage) (prectr_snapshot_bytes)",
)
SNAPSHOT_UPLOADED_BYTES: Final = MetricDefinition(
    "prectr_snapshot_uploaded_bytes",
    "gauge",
    _TASK,
    ("stream",),
    "Bytes uploaded for the last snapshot of the task; files uploaded before are reused.",
    "prectr_snapshot_uploaded_bytes / prectr_snapshot_bytes",
)
SNAPSHOT_FAILURES: Final = MetricDefinition(
    "prectr_snapshot_failures_total",
    "counter",
    _TASK,
    ("stream",),
    "Snapshots that could not be saved or pruned since this process opened the task.",
    "increase(prectr_snapshot_failures_total[10m]) > 0",
)
SNAPSHOTS_CORRUPT: Final = MetricDefinition(
    "prectr_snapshots_corrupt_total",
    "counter",
    _TASK,
    ("stream",),
    "Corrupt snapshots that were skipped when this process opened the task.",
    "prectr_snapshots_corrupt_total > 0",
)

SECTION: Final = MetricSection(
    "State and snapshots",
    (
        RESTORE_REMAINING_RECORDS,
        RESTORE_SECONDS,
        RESTORED_RECORDS,
        STORE_KEYS,
        STORE_BYTES,
        STORE_MEMORY_BYTES,
        STORE_BLOCK_CACHE_HITS,
        STORE_BLOCK_CACHE_MISSES,
        STORE_WRITE_STALL_SECONDS,
        SNAPSHOT_AGE_SECONDS,
        SNAPSHOT_SECONDS,
        SNAPSHOT_BYTES,
        SNAPSHOT_UPLOADED_BYTES,
        SNAPSHOT_FAILURES,
        SNAPSHOTS_CORRUPT,
    ),
    "",
)
