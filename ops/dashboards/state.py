"""What the tasks keep: RocksDB, its snapshots, and how they come back."""

from typing import Final

from prectr.ops.dashboards.board import Dashboard, Panel, Query, Row


def _aggregated(metric: str, aggregation: str = "sum", by: str = "stage") -> str:
    return f'{aggregation} by ({by}) ({metric}{{job="stream"}})'


STATE: Final = Dashboard(
    name="state",
    title="PRECTR: state",
    description="The store of each task, its snapshots, and what a restart takes. State may lag behind the commit and never "
    "runs ahead of it.",
    has_model_variable=False,
    rows=(
        Row(
            "RocksDB",
            (
                Panel(
                    id=1,
                    title="Keys",
                    description="About how many entries the stores hold. Users and queries leave after 90 d of event time.",
                    unit="short",
                    queries=(Query(_aggregated("prectr_store_keys"), "{{stage}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=2,
                    title="Bytes on disk",
                    description="Size of the stores' files. It goes up and down by compaction.",
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
                    title="Cache hits",
                    description="Share of the blocks that were in the cache. Falls once the state no longer fits into it; "
                    "each miss is a read from the disk.",
                    unit="percentunit",
                    queries=(Query("stage:prectr_store_block_cache_hits:ratio_rate5m", "{{stage}}"),),
                    axis_min=0,
                    axis_max=1,
                ),
                Panel(
                    id=5,
                    title="Writes held back",
                    description="Share of the time in which RocksDB made writers wait, since the disk does not keep up with "
                    "compaction. 0 is well.",
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
                    title="Bytes on disk, by task",
                    description="One far above the others: users or queries are not spread well over the partitions.",
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
                    description="By task. One is taken every --snapshot-interval seconds (60). Nothing in this row without "
                    "--snapshots.",
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
                    title="Time of a snapshot",
                    description="Upload included, of the slowest task. It should stay well below --snapshot-interval.",
                    unit="s",
                    queries=(Query(_aggregated("prectr_snapshot_seconds", "max"), "{{stage}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=9,
                    title="Size of the last snapshots",
                    description="The whole, and what of it had to be uploaded: files that were there are not sent again.",
                    unit="bytes",
                    queries=(
                        Query(_aggregated("prectr_snapshot_bytes"), "{{stage}}"),
                        Query(_aggregated("prectr_snapshot_uploaded_bytes"), "{{stage}} uploaded"),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=10,
                    title="Snapshots that went wrong",
                    description="In the last hour: those that could not be saved or pruned; and those that were found damaged "
                    "when the tasks that are open now were opened.",
                    unit="short",
                    queries=(
                        Query(
                            'sum by (stage) (increase(prectr_snapshot_failures_total{job="stream"}[1h]))',
                            "{{stage}} failed",
                        ),
                        Query(_aggregated("prectr_snapshots_corrupt_total"), "{{stage}} damaged"),
                    ),
                    axis_min=0,
                ),
            ),
        ),
        Row(
            "Restores",
            (
                Panel(
                    id=11,
                    title="Time to come back",
                    description="From the opening of a task to where its state had reached the commit: snapshot fetched, "
                    "records taken again.",
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
                    title="Still to be taken again",
                    description="Records between a task's state and its commit, taken in silence after a restart; then 0.",
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
                    title="Taken again",
                    description="Records taken again in silence since the tasks were opened. Many at each restart: the state "
                    "comes from an old snapshot, or from none.",
                    unit="short",
                    queries=(Query(_aggregated("prectr_restored_records_total"), "{{stage}}"),),
                    axis_min=0,
                ),
            ),
        ),
    ),
)
