"""The first dashboard to look at: is it healthy, is it learning."""

from typing import Final

from prectr.ops.dashboards.board import Dashboard, Panel, Query, Row

OVERVIEW: Final = Dashboard(
    name="overview",
    title="PRECTR: overview",
    description="Is the system healthy, and is the model learning? Each row has a dashboard of its own; the links are above.",
    rows=(
        Row(
            "Is it healthy?",
            (
                Panel(
                    id=1,
                    title="Alerts firing",
                    description="Alerts that fire now; 0 is all well. Below they are listed; docs/runbook.md has a section on "
                    "each.",
                    unit="none",
                    queries=(Query('count(ALERTS{alertname=~"Prectr.*",alertstate="firing"}) or vector(0)'),),
                    kind="stat",
                    thresholds=((None, "green"), (1, "red")),
                    width=4,
                    height=4,
                ),
                Panel(
                    id=2,
                    title="Processes that do not answer",
                    description="Exporters of stream processes, trainers and monitors that Prometheus cannot reach.",
                    unit="none",
                    queries=(Query('sum by (job) (1 - up{job=~"stream|train|monitor"})', "{{job}}"),),
                    kind="stat",
                    thresholds=((None, "green"), (1, "red")),
                    width=4,
                    height=4,
                ),
                Panel(
                    id=3,
                    title="Tasks at work",
                    description="Partitions of each stage that some process has now. Both stages have as many as the topics "
                    "have partitions; fewer means that some are with nobody.",
                    unit="none",
                    queries=(Query("count by (stage) (stage_partition:prectr_task_offset:max)", "{{stage}}"),),
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    id=4,
                    title="Model behind the stream",
                    description="From the last page learned to where the stream is, at the pace of the log. A page is "
                    "learned after its attribution window (2 min by default); minutes are well, an hour is not.",
                    unit="s",
                    queries=(Query('model:prectr_model_staleness_seconds:clock{model=~"$model"}', "{{model}}"),),
                    kind="stat",
                    thresholds=((None, "green"), (300, "orange"), (600, "red")),
                    width=4,
                    height=4,
                ),
                Panel(
                    id=5,
                    title="Records not read yet",
                    description="Consumer lag of each stage and of the trainer, over its partitions. It grows while a log is "
                    "loaded and must come down.",
                    unit="short",
                    queries=(Query("stage:prectr_consumer_lag_records:sum", "{{stage}}"),),
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    id=6,
                    title="Dead letters",
                    description="Share of the records of the last 15 min that could not be taken. `prectr dlq list` says why.",
                    unit="percentunit",
                    queries=(Query("job:prectr_dead_letters:ratio_rate15m"),),
                    kind="stat",
                    thresholds=((None, "green"), (0.001, "orange"), (0.01, "red")),
                    width=4,
                    height=4,
                ),
                Panel(
                    id=7,
                    title="Firing and pending alerts",
                    description="What is wrong now. Look up the name in docs/runbook.md.",
                    unit="none",
                    queries=(Query('ALERTS{alertname=~"Prectr.*"}'),),
                    kind="table",
                    width=12,
                ),
                Panel(
                    id=8,
                    title="Events",
                    description="Records read from search-events a second, by what they are.",
                    unit="recps",
                    queries=(
                        Query(
                            'sum by (type) (rate(prectr_events_total{job="stream"}[$__rate_interval]))',
                            "{{type}}",
                        ),
                    ),
                    axis_min=0,
                    width=6,
                ),
                Panel(
                    id=9,
                    title="Pages learned",
                    description="Result pages that each model has learned from, a second. It follows the events, two minutes "
                    "of event time behind.",
                    unit="recps",
                    queries=(
                        Query(
                            "sum by (model) "
                            '(rate(prectr_trained_pages_total{job="train",model=~"$model"}[$__rate_interval]))',
                            "{{model}}",
                        ),
                    ),
                    axis_min=0,
                    width=6,
                ),
            ),
        ),
        Row(
            "Is it learning?",
            (
                Panel(
                    id=10,
                    title="AUC, last hour and last day",
                    description="Each page is scored before it is learned from. The hour should not be below the day by more "
                    "than noise: with 1,000 clicks an hour, 0.04 is noise. Windows are of event time.",
                    unit="none",
                    queries=(
                        Query(
                            'max by (model, window) (prectr_auc{job="monitor",segment="all",window=~"1h|24h",'
                            'model=~"$model"})',
                            "{{model}} {{window}}",
                        ),
                    ),
                    decimals=4,
                ),
                Panel(
                    id=11,
                    title="GAUC, last hour and last day",
                    description="Mean AUC within a page, weighted by impressions: order on the page, which is what a user "
                    "sees. As AUC, the hour should not be below the day by more than noise.",
                    unit="none",
                    queries=(
                        Query(
                            'max by (model, window) (prectr_gauc{job="monitor",segment="all",window=~"1h|24h",'
                            'model=~"$model"})',
                            "{{model}} {{window}}",
                        ),
                    ),
                    decimals=4,
                ),
                Panel(
                    id=12,
                    title="Calibration, last hour",
                    description="Predicted over observed clicks; 1 is right. Above it the model promises too much.",
                    unit="none",
                    queries=(
                        Query(
                            'max by (model) (prectr_calibration_ratio{job="monitor",segment="all",window="1h",'
                            'model=~"$model"})',
                            "{{model}}",
                        ),
                    ),
                    decimals=3,
                ),
                Panel(
                    id=13,
                    title="Age of the newest checkpoint",
                    description="What a crash of the trainer would throw back; it learns that again. None is written while "
                    "nothing comes to learn from.",
                    unit="s",
                    queries=(Query('max(prectr_checkpoint_age_seconds{job="train"})', "checkpoint"),),
                    axis_min=0,
                ),
                Panel(
                    id=14,
                    title="Age of the oldest snapshot",
                    description="Of the task whose last snapshot is the oldest: what a lost disk would have to be rebuilt "
                    "from the log. Nothing where snapshots are not kept (--snapshots).",
                    unit="s",
                    queries=(Query('max by (stage) (prectr_snapshot_age_seconds{job="stream"})', "{{stage}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=15,
                    title="Where the trainer's time goes",
                    description="Share of each step. Much `wait`: it keeps up and has time to spare. None: it is the "
                    "bottleneck.",
                    unit="percentunit",
                    queries=(Query("phase:prectr_train_seconds:ratio_rate5m", "{{phase}}"),),
                    kind="stack",
                    axis_min=0,
                    axis_max=1,
                ),
            ),
        ),
    ),
)
