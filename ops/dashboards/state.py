"""The state of the tasks: RocksDB, snapshots, restoration."""

from typing import Final

from prectr.ops.dashboards.board import Dashboard, Panel, Query, Row


def _aggregated(metric: str, aggregation: str = "sum", by: str = "stage") -> str:
    return f'{aggregation} by ({by}) ({metric}{{job="stream"}})'


STATE: Final = Dashboard(
    name="state",
    title="PRECTR: state",
    description="The store of each task, its snapshots, and the cost of a restart. State may lag behind the commit "
    "and is never ahead of it.",
    has_model_variable=False,
    rows=(
        Row(
            "RocksDB",
            (
                Panel(
                    id=1,
                    title="Keys",
                    description="Estimated number of entries. Users and queries are evicted after 90 d of event time "
                    "without an update.",
                    unit="short",
                    queries=(Query(_aggregated("prectr_store_keys"), "{{stage}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=2,
                    title="Size on disk",
                    description="Size of the store files. Rises and falls with compaction.",
                    unit="bytes",
                    queries=(Query(_aggregated("prectr_store_bytes"), "{{stage}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=3,
                    title="Memory",
                    description="Block cache and memtables of each stage.",
                    unit="bytes",
                    queries=(Query(_aggregated("prectr_store_memory_bytes"), "{{stage}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=4,
                    title="Block cache hit ratio",
                    description="Share of block reads served by the cache. Falls once the state no longer fits; each "
                    "miss reads from disk.",
                    unit="percentunit",
                    queries=(Query("stage:prectr_store_block_cache_hits:ratio_rate5m", "{{stage}}"),),
                    axis_min=0,
                    axis_max=1,
                ),
                Panel(
                    id=5,
                    title="Write stalls",
                    description="Share of time in which RocksDB stalled writes because the disk cannot keep up with "
                    "compaction. 0 is normal.",
                    unit="percentunit",
                    queries=(
                        Query(
                            "max by (stage, partition) "
                            '(rate(prectr_store_write_stall_seconds_total{job="stream"}[$__rate_interval]))',
                            "{{stage}} {{partition}}",
                        ),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=6,
                    title="Size on disk, by task",
                    description="One far above the others: users or queries are unevenly spread over the partitions.",
                    unit="bytes",
                    queries=(
                        Query(_aggregated("prectr_store_bytes", "max", "stage, partition"), "{{stage}} {{partition}}"),
                    ),
                    axis_min=0,
                ),
            ),
        ),
        Row(
            "Snapshots",
            (
                Panel(
                    id=7,
                    title="Age of the last snapshot",
                    description="By task. One is taken every --snapshot-interval seconds (60). No data in this row "
                    "without --snapshots.",
                    unit="s",
                    queries=(
                        Query(
                            _aggregated("prectr_snapshot_age_seconds", "min", "stage, partition"),
                            "{{stage}} {{partition}}",
                        ),
                    ),
                    thresholds=((None, "green"), (600, "red")),
                    axis_min=0,
                ),
                Panel(
                    id=8,
                    title="Duration of a snapshot",
                    description="Of the slowest task, including the upload. Should stay well below "
                    "--snapshot-interval.",
                    unit="s",
                    queries=(Query(_aggregated("prectr_snapshot_seconds", "max"), "{{stage}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=9,
                    title="Size of the last snapshots",
                    description="Total size, and bytes uploaded: files that were uploaded before are reused.",
                    unit="bytes",
                    queries=(
                        Query(_aggregated("prectr_snapshot_bytes"), "{{stage}}"),
                        Query(_aggregated("prectr_snapshot_uploaded_bytes"), "{{stage}} uploaded"),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=10,
                    title="Failed snapshots",
                    description="In the last hour: snapshots that could not be saved or pruned; and corrupt ones "
                    "that were skipped when tasks were opened.",
                    unit="short",
                    queries=(
                        Query(
                            'sum by (stage) (increase(prectr_snapshot_failures_total{job="stream"}[1h]))',
                            "{{stage}} failed",
                        ),
                        Query(_aggregated("prectr_snapshots_corrupt_total"), "{{stage}} corrupt"),
                    ),
                    axis_min=0,
                ),
            ),
        ),
        Row(
            "Restoration",
            (
                Panel(
                    id=11,
                    title="Restore time",
                    description="From opening a task until its state reaches the committed offset: snapshot "
                    "download, then reprocessing of records.",
                    unit="s",
                    queries=(
                        Query(
                            _aggregated("prectr_restore_seconds", "max", "stage, partition"), "{{stage}} {{partition}}"
                        ),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=12,
                    title="Records left to restore",
                    description="Records between the state of a task and its commit, reprocessed after a restart "
                    "with output suppressed; then 0.",
                    unit="short",
                    queries=(
                        Query(
                            _aggregated("prectr_restore_remaining_records", "max", "stage, partition"),
                            "{{stage}} {{partition}}",
                        ),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=13,
                    title="Restored records",
                    description="Records reprocessed since the tasks were opened. Many after each restart: the state "
                    "comes from an old snapshot, or from none.",
                    unit="short",
                    queries=(Query(_aggregated("prectr_restored_records_total"), "{{stage}}"),),
                    axis_min=0,
                ),
            ),
        ),
    ),
)
