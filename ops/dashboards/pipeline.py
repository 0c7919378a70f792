"""From events to examples: lag, outcomes of all records, dead letters, latency."""

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
    description="From search-events to training-examples. Every record has exactly one outcome, and none is dropped.",
    has_model_variable=False,
    rows=(
        Row(
            "Lag",
            (
                Panel(
                    id=1,
                    title="Consumer lag",
                    description="Unread records by stage, and of the trainer. If one grows while the others do not, "
                    "it is the bottleneck.",
                    unit="short",
                    queries=(Query("stage:prectr_consumer_lag_records:sum", "{{stage}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=2,
                    title="Consumer lag, by partition",
                    description="One partition far above the others: its process is slow, or the records of a user "
                    "or query are too many for one partition.",
                    unit="short",
                    queries=(
                        Query("max by (stage, partition) (prectr_consumer_lag_records)", "{{stage}} {{partition}}"),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=3,
                    title="Throughput, by partition",
                    description="Records read per second, by task. A partition at 0 with lag, while others advance, "
                    "is stalled: everything downstream waits for it.",
                    unit="recps",
                    queries=(Query("stage_partition:prectr_task_offset:rate5m", "{{stage}} {{partition}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=4,
                    title="Watermark lag",
                    description="Watermark of each task behind the largest one. The task with the largest lag holds "
                    "back the merged watermark; an idle partition is excluded after --idle-timeout.",
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
                    title="Model staleness",
                    description="Event time from the last trained page to the newest watermark: the end-to-end delay.",
                    unit="s",
                    queries=(Query('max by (model) (prectr_model_staleness_seconds{job="train"})', "{{model}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=6,
                    title="Late records",
                    description="Records that arrived behind the merged watermark, after their partition was idle. 0 "
                    "means that a replay gives bit-identical results.",
                    unit="short",
                    queries=(Query('max(prectr_late_records_total{job="train"})', "late records"),),
                    axis_min=0,
                    decimals=0,
                ),
            ),
        ),
        Row(
            "Outcomes",
            (
                Panel(
                    id=7,
                    title="Events",
                    description="Records read from search-events per second, by type.",
                    unit="recps",
                    queries=(Query(_rate("prectr_events_total", "type"), "{{type}}"),),
                    kind="stack",
                    axis_min=0,
                ),
                Panel(
                    id=8,
                    title="Pages, by outcome",
                    description="Result pages per second. `emitted` pages become training examples; `empty` ones "
                    "show no items.",
                    unit="recps",
                    queries=(Query(_rate("prectr_pages_total", "outcome"), "{{outcome}}"),),
                    kind="stack",
                    axis_min=0,
                ),
                Panel(
                    id=9,
                    title="Clicks, by outcome",
                    description="Clicks per second. `late`: after the attribution window; `orphan`: no page of this "
                    "user; `foreign`: an item that is not on the page. Many of these point to clocks, "
                    "sampling or ids of the log. `other_action`: not in the setting click_actions.",
                    unit="recps",
                    queries=(
                        Query(_rate("prectr_clicks_total", "outcome"), "{{outcome}}"),
                        Query(
                            'sum(rate(prectr_misplaced_events_total{job="stream"}[$__rate_interval]))',
                            "in another partition than their user's (of one in 64)",
                        ),
                    ),
                    kind="stack",
                    axis_min=0,
                ),
                Panel(
                    id=10,
                    title="Dead letters, by reason",
                    description="Invalid records per second. They are kept with bytes, topic, partition, offset and "
                    "reason: `prectr dlq list`.",
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
                    title="Pending pages and clicks",
                    description="Pages whose attribution window is open, and clicks that wait for their page. "
                    "Unbounded growth means that the watermark of a partition does not advance.",
                    unit="short",
                    queries=(
                        Query('sum(max by (partition) (prectr_pending_pages{job="stream"}))', "pending pages"),
                        Query('sum(max by (partition) (prectr_pending_clicks{job="stream"}))', "waiting clicks"),
                        Query(
                            'sum(max by (partition) (prectr_future_events{job="stream"}))', "ahead of their partition"
                        ),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=17,
                    title="Event time ahead of now, by partition",
                    description="The watermark of each partition of search-events, less the time of day. A little "
                    "below 0 in a live system, far below while an old log is loaded; above 0, an event of the future "
                    "has set the clock. A line that falls by a second each second does not advance.",
                    unit="s",
                    queries=(
                        Query(
                            'stage_partition:prectr_watermark_timestamp_seconds:max{stage="join"} - time()',
                            "{{partition}}",
                        ),
                    ),
                ),
                Panel(
                    id=18,
                    title="Time since the last event",
                    description="Above the second line, no event has arrived for far longer than the rate of the "
                    "latest ones explains.",
                    unit="s",
                    queries=(
                        Query(
                            'time() - max(prectr_last_event_timestamp_seconds{job="stream"})', "since the last event"
                        ),
                        Query('min(prectr_longest_usual_silence_seconds{job="stream"})', "longest usual silence"),
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
                    title="Duration of a micro-batch",
                    description="From the first record to the commit, including the transaction: median and 99th "
                    "percentile.",
                    unit="s",
                    queries=(
                        _quantile("prectr_microbatch_seconds", 0.5),
                        _quantile("prectr_microbatch_seconds", 0.99),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=14,
                    title="Duration of a transaction",
                    description="Close to the duration of the micro-batch: the broker is the bottleneck.",
                    unit="s",
                    queries=(
                        _quantile("prectr_transaction_seconds", 0.5),
                        _quantile("prectr_transaction_seconds", 0.99),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=15,
                    title="Records per micro-batch",
                    description="Mean size. Large batches mean that there is a backlog; they cost less per record.",
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
                    title="Emitted records",
                    description="Records per second that each stage emits: closed pages and examples.",
                    unit="recps",
                    queries=(Query(_rate("prectr_emitted_records_total", "stage"), "{{stage}}"),),
                    axis_min=0,
                ),
            ),
        ),
    ),
)
