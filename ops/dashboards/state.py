"""What the tasks keep: RocksDB, its snapshots, and how they come back."""

from typing import Final

from prectr.ops.dashboards.board import Board, Panel, Query, Row


def _of_tasks(metric: str, how: str = "sum", by: str = "stage") -> str:
    return f'{how} by ({by}) ({metric}{{job="stream"}})'


STATE: Final = Board(
    name="state",
    title="PRECTR: state",
    text="The store of each task, its snapshots, and what a restart takes. State may lag behind the commit and never "
    "runs ahead of it.",
    by_model=False,
    rows=(
        Row(
            "RocksDB",
            (
                Panel(
                    id=1,
                    title="Keys",
                    text="About how many entries the stores hold. Users and queries leave after 90 d of event time.",
                    unit="short",
                    queries=(Query(_of_tasks("prectr_store_keys"), "{{stage}}"),),
                    low=0,
                ),
                Panel(
                    id=2,
                    title="Bytes on disk",
                    text="Size of the stores' files. It goes up and down by compaction.",
                    unit="bytes",
                    queries=(Query(_of_tasks("prectr_store_bytes"), "{{stage}}"),),
                    low=0,
                ),
                Panel(
                    id=3,
                    title="Memory",
                    text="Block cache and memtables of each stage.",
                    unit="bytes",
                    queries=(Query(_of_tasks("prectr_store_memory_bytes"), "{{stage}}"),),
                    low=0,
                ),
                Panel(
                    id=4,
                    title="Cache hits",
                    text="Share of the blocks that were in the cache. Falls once the state no longer fits into it; "
                    "each miss is a read from the disk.",
                    unit="percentunit",
                    queries=(Query("stage:prectr_store_cache_hits:ratio_rate5m", "{{stage}}"),),
                    low=0,
                    high=1,
                ),
                Panel(
                    id=5,
                    title="Writes held back",
                    text="Share of the time in which RocksDB made writers wait, since the disk does not keep up with "
                    "compaction. 0 is well.",
                    unit="percentunit",
                    queries=(
                        Query(
                            "max by (stage, partition) "
                            '(rate(prectr_store_stall_seconds_total{job="stream"}[$__rate_interval]))',
                            "{{stage}} {{partition}}",
                        ),
                    ),
                    low=0,
                ),
                Panel(
                    id=6,
                    title="Bytes on disk, by task",
                    text="One far above the others: users or queries are not spread well over the partitions.",
                    unit="bytes",
                    queries=(
                        Query(_of_tasks("prectr_store_bytes", "max", "stage, partition"), "{{stage}} {{partition}}"),
                    ),
                    low=0,
                ),
            ),
        ),
        Row(
            "Snapshots",
            (
                Panel(
                    id=7,
                    title="Age of the last snapshot",
                    text="By task. One is taken every --snapshot-every seconds (60). Nothing in this row without "
                    "--snapshots.",
                    unit="s",
                    queries=(
                        Query(
                            _of_tasks("prectr_snapshot_age_seconds", "min", "stage, partition"),
                            "{{stage}} {{partition}}",
                        ),
                    ),
                    zones=((None, "green"), (600, "red")),
                    low=0,
                ),
                Panel(
                    id=8,
                    title="Time of a snapshot",
                    text="Upload included, of the slowest task. It should stay well below --snapshot-every.",
                    unit="s",
                    queries=(Query(_of_tasks("prectr_snapshot_seconds", "max"), "{{stage}}"),),
                    low=0,
                ),
                Panel(
                    id=9,
                    title="Size of the last snapshots",
                    text="The whole, and what of it had to be uploaded: files that were there are not sent again.",
                    unit="bytes",
                    queries=(
                        Query(_of_tasks("prectr_snapshot_bytes"), "{{stage}}"),
                        Query(_of_tasks("prectr_snapshot_uploaded_bytes"), "{{stage}} uploaded"),
                    ),
                    low=0,
                ),
                Panel(
                    id=10,
                    title="Snapshots that went wrong",
                    text="In the last hour: those that could not be saved or pruned; and those that were found damaged "
                    "when the tasks that are open now were opened.",
                    unit="short",
                    queries=(
                        Query(
                            'sum by (stage) (increase(prectr_snapshot_failures_total{job="stream"}[1h]))',
                            "{{stage}} failed",
                        ),
                        Query(_of_tasks("prectr_snapshots_damaged_total"), "{{stage}} damaged"),
                    ),
                    low=0,
                ),
            ),
        ),
        Row(
            "Restores",
            (
                Panel(
                    id=11,
                    title="Time to come back",
                    text="From the opening of a task to where its state had reached the commit: snapshot fetched, "
                    "records taken again.",
                    unit="s",
                    queries=(
                        Query(
                            _of_tasks("prectr_restore_seconds", "max", "stage, partition"), "{{stage}} {{partition}}"
                        ),
                    ),
                    low=0,
                ),
                Panel(
                    id=12,
                    title="Still to be taken again",
                    text="Records between a task's state and its commit, taken in silence after a restart; then 0.",
                    unit="short",
                    queries=(
                        Query(
                            _of_tasks("prectr_replayed_records_behind", "max", "stage, partition"),
                            "{{stage}} {{partition}}",
                        ),
                    ),
                    low=0,
                ),
                Panel(
                    id=13,
                    title="Taken again",
                    text="Records taken again in silence since the tasks were opened. Many at each restart: the state "
                    "comes from an old snapshot, or from none.",
                    unit="short",
                    queries=(Query(_of_tasks("prectr_replayed_records_total"), "{{stage}}"),),
                    low=0,
                ),
            ),
        ),
    ),
)
