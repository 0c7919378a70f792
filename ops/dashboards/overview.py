"""The first dashboard to look at: health of the system, and learning."""

from typing import Final

from prectr.ops.dashboards.board import Dashboard, Panel, Query, Row

OVERVIEW: Final = Dashboard(
    name="overview",
    title="PRECTR: overview",
    description="Is the system healthy, and is the model learning? Each row has its own dashboard; see the links "
    "above.",
    rows=(
        Row(
            "Is it healthy?",
            (
                Panel(
                    id=1,
                    title="Alerts firing",
                    description="Number of firing alerts; they are listed below. docs/runbook.md has a section on "
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
                    title="Processes down",
                    description="Stream workers, trainers and monitors that Prometheus cannot scrape, and processes "
                    "that Kafka does not answer.",
                    unit="none",
                    queries=(
                        Query('sum by (job) (1 - up{job=~"stream|train|monitor"})', "{{job}}"),
                        Query("processes:prectr_broker_unreachable:count", "without Kafka"),
                    ),
                    kind="stat",
                    thresholds=((None, "green"), (1, "red")),
                    width=4,
                    height=4,
                ),
                Panel(
                    id=3,
                    title="Running tasks",
                    description="Tasks of each stage that are assigned to a process. Each stage has as many as the "
                    "topics have partitions; fewer means that some partitions are unassigned.",
                    unit="none",
                    queries=(Query("count by (stage) (stage_partition:prectr_task_offset:max)", "{{stage}}"),),
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    id=4,
                    title="Model staleness",
                    description="From the last trained page to the newest watermark, at the pace of the log. A page "
                    "is trained on after its attribution window (2 min by default): minutes are normal, "
                    "an hour is not.",
                    unit="s",
                    queries=(Query('model:prectr_model_staleness_seconds:clock{model=~"$model"}', "{{model}}"),),
                    kind="stat",
                    thresholds=((None, "green"), (300, "orange"), (600, "red")),
                    width=4,
                    height=4,
                ),
                Panel(
                    id=5,
                    title="Consumer lag",
                    description="Unread records of each stage and of the trainer, over all partitions. Grows while a "
                    "log is loaded, then must fall.",
                    unit="short",
                    queries=(Query("stage:prectr_consumer_lag_records:sum", "{{stage}}"),),
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    id=6,
                    title="Dead letters",
                    description="Share of the records of the last 15 min that became dead letters. See `prectr dlq "
                    "list` for the reasons.",
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
                    description="Look up the name in docs/runbook.md.",
                    unit="none",
                    queries=(Query('ALERTS{alertname=~"Prectr.*"}'),),
                    kind="table",
                    width=12,
                ),
                Panel(
                    id=8,
                    title="Events",
                    description="Records read from search-events per second, by type.",
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
                    title="Trained pages",
                    description="Result pages that each model has trained on, per second. Follows the events with "
                    "about two minutes of event time.",
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
                    description="Each page is scored before the model trains on it. The hour should not be below the "
                    "day by more than noise: with 1,000 clicks per hour, 0.04 is noise. Windows are "
                    "event time.",
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
                    description="AUC within a page, averaged by impressions: the order on the page, which is what "
                    "users see. The hour should not be below the day by more than noise.",
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
                    description="Predicted clicks divided by observed clicks; 1 is perfect, above 1 the model "
                    "predicts too many.",
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
                    description="Training that a crash of the trainer would repeat. No checkpoint is written while "
                    "there is nothing to train on.",
                    unit="s",
                    queries=(Query('max(prectr_checkpoint_age_seconds{job="train"})', "checkpoint"),),
                    axis_min=0,
                ),
                Panel(
                    id=14,
                    title="Age of the oldest snapshot",
                    description="Of the task whose last snapshot is the oldest: the part of the log that a lost disk "
                    "would have to reprocess. No data without --snapshots.",
                    unit="s",
                    queries=(Query('max by (stage) (prectr_snapshot_age_seconds{job="stream"})', "{{stage}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=15,
                    title="Trainer time by phase",
                    description="Share of each phase. A large `wait` means that the trainer keeps up; none means "
                    "that it is the bottleneck.",
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
