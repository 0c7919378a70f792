"""From events to examples: lag, what became of every record, dead letters, latency."""

from typing import Final

from prectr.ops.dashboards.board import Dashboard, Panel, Query, Row


def _rate(metric: str, by: str) -> str:
    return f'sum by ({by}) (rate({metric}{{job="stream"}}[$__rate_interval]))'


def _quantile(metric: str, quantile: float) -> Query:
    return Query(
        f"histogram_quantile({quantile}, {_rate(metric + '_bucket', 'stage, le')})",
        f"{{{{stage}}}} p{quantile * 100:.0f}",
    )


PIPELINE: Final = Dashboard(
    name="pipeline",
    title="PRECTR: pipeline",
    description="From search-events to training-examples. Every record ends exactly one way, and none is dropped.",
    has_model_variable=False,
    rows=(
        Row(
            "Lag",
            (
                Panel(
                    id=1,
                    title="Records not read yet",
                    description="Consumer lag by stage, the trainer's beside them. That one grows while the others do not "
                    "says where the bottleneck is.",
                    unit="short",
                    queries=(Query("stage:prectr_consumer_lag_records:sum", "{{stage}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=2,
                    title="Records not read yet, by partition",
                    description="One partition far above the others: its process is slow, or a user's or query's records are "
                    "too many for one.",
                    unit="short",
                    queries=(
                        Query("max by (stage, partition) (prectr_consumer_lag_records)", "{{stage}} {{partition}}"),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=3,
                    title="Records taken, by partition",
                    description="Records a second by task, as its position moves. A partition at 0 while others move, with "
                    "records to read, stands still: everything downstream waits for it.",
                    unit="recps",
                    queries=(Query("stage_partition:prectr_task_offset:rate5m", "{{stage}} {{partition}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=4,
                    title="Event time behind the newest task",
                    description="Largest watermark that a process knows of, less the task's own. The one that is furthest "
                    "behind holds the line for all; an idle partition is left out after --idle-timeout.",
                    unit="s",
                    queries=(
                        Query(
                            'max by (stage, partition) (prectr_watermark_lag_seconds{job="stream"})',
                            "{{stage}} {{partition}}",
                        ),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=5,
                    title="Model behind the stream",
                    description="Event time from the last page that was learned to where the stream is: the whole way, end to "
                    "end.",
                    unit="s",
                    queries=(Query('max by (model) (prectr_model_staleness_seconds{job="train"})', "{{model}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=6,
                    title="Came out of order",
                    description="Records that came behind the line, since their partition had been idle. 0 means that a "
                    "replay gives the same result to the last bit.",
                    unit="short",
                    queries=(Query('max(prectr_late_records_total{job="train"})', "out of order"),),
                    axis_min=0,
                    decimals=0,
                ),
            ),
        ),
        Row(
            "What became of it",
            (
                Panel(
                    id=7,
                    title="Events",
                    description="Records read from search-events a second, by what they are.",
                    unit="recps",
                    queries=(Query(_rate("prectr_events_total", "type"), "{{type}}"),),
                    kind="stack",
                    axis_min=0,
                ),
                Panel(
                    id=8,
                    title="Pages, by how they ended",
                    description="Result pages a second. `emitted` is what is learned from.",
                    unit="recps",
                    queries=(Query(_rate("prectr_pages_total", "outcome"), "{{outcome}}"),),
                    kind="stack",
                    axis_min=0,
                ),
                Panel(
                    id=9,
                    title="Clicks, by how they ended",
                    description="Clicks a second. `late`: after the attribution window; `orphan`: no page of this user; "
                    "`foreign`: an item that was not on the page. Much of these: clock, sampling or ids of the log.",
                    unit="recps",
                    queries=(Query(_rate("prectr_clicks_total", "outcome"), "{{outcome}}"),),
                    kind="stack",
                    axis_min=0,
                ),
                Panel(
                    id=10,
                    title="Dead letters, by reason",
                    description="Records a second that could not be taken. They are kept with their bytes, place and reason: "
                    "`prectr dlq list`.",
                    unit="recps",
                    queries=(Query(_rate("prectr_dead_letters_total", "reason"), "{{reason}}"),),
                    kind="stack",
                    axis_min=0,
                ),
                Panel(
                    id=11,
                    title="Share of dead letters",
                    description="Of the records of the last 15 min.",
                    unit="percentunit",
                    queries=(Query("job:prectr_dead_letters:ratio_rate15m", "dead letters"),),
                    thresholds=((None, "green"), (0.01, "red")),
                    axis_min=0,
                ),
                Panel(
                    id=12,
                    title="Open pages, waiting clicks",
                    description="Pages whose attribution window has not passed, and clicks whose page has not come. What "
                    "grows without bound is a partition whose time stands still.",
                    unit="short",
                    queries=(
                        Query('sum(max by (partition) (prectr_pending_pages{job="stream"}))', "open pages"),
                        Query('sum(max by (partition) (prectr_pending_clicks{job="stream"}))', "waiting clicks"),
                    ),
                    axis_min=0,
                ),
            ),
        ),
        Row(
            "Latency",
            (
                Panel(
                    id=13,
                    title="Time of a micro-batch",
                    description="From the first record to the commit, transaction included: half of them, and 99 of 100, take "
                    "no longer.",
                    unit="s",
                    queries=(
                        _quantile("prectr_microbatch_seconds", 0.5),
                        _quantile("prectr_microbatch_seconds", 0.99),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=14,
                    title="Time of a transaction",
                    description="What the broker takes of it. Near the time of the whole: the broker is the bottleneck.",
                    unit="s",
                    queries=(
                        _quantile("prectr_transaction_seconds", 0.5),
                        _quantile("prectr_transaction_seconds", 0.99),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=15,
                    title="Records a micro-batch",
                    description="Mean size. Large ones say that there is a backlog, and are cheap a record.",
                    unit="short",
                    queries=(
                        Query(
                            f"{_rate('prectr_microbatch_records_total', 'stage')} / "
                            f"{_rate('prectr_microbatch_seconds_count', 'stage')}",
                            "{{stage}}",
                        ),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=16,
                    title="Records put out",
                    description="Records a second that each stage sends on: closed pages, and examples.",
                    unit="recps",
                    queries=(Query(_rate("prectr_emitted_records_total", "stage"), "{{stage}}"),),
                    axis_min=0,
                ),
            ),
        ),
    ),
)
