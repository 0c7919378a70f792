"""The trainer: time by phase, losses, hard negatives."""

from typing import Final

from prectr.ops.dashboards.board import Dashboard, Panel, Query, Row


def _rate(metric: str, by: str, matchers: str = "") -> str:
    return f'sum by ({by}) (rate({metric}{{job="train",model=~"$model"{matchers}}}[$__rate_interval]))'


TRAINING: Final = Dashboard(
    name="training",
    title="PRECTR: training",
    description="Where the trainer spends its time, its losses, and how fresh the model is.",
    rows=(
        Row(
            "Time",
            (
                Panel(
                    id=1,
                    title="Time by phase",
                    description="Share of each phase. `wait` is for examples, `collate` makes tensors of them. Much "
                    "wait: the trainer keeps up. Much collate: the device is idle.",
                    unit="percentunit",
                    queries=(Query("phase:prectr_train_seconds:ratio_rate5m", "{{phase}}"),),
                    kind="stack",
                    axis_min=0,
                    axis_max=1,
                ),
                Panel(
                    id=2,
                    title="Duration of a batch, by phase",
                    description="Mean over the batches of each model.",
                    unit="s",
                    queries=(
                        Query(
                            f"{_rate('prectr_train_seconds_total', 'model, phase')} / on (model) group_left "
                            f"{_rate('prectr_trained_batches_total', 'model')}",
                            "{{model}} {{phase}}",
                        ),
                    ),
                    kind="stack",
                    axis_min=0,
                ),
                Panel(
                    id=3,
                    title="Device idle",
                    description="Share of time in which the device computed nothing.",
                    unit="percentunit",
                    queries=(Query('max(prectr_device_idle_ratio{job="train"})', "idle"),),
                    axis_min=0,
                    axis_max=1,
                ),
                Panel(
                    id=4,
                    title="Trained impressions",
                    description="Per second, by model.",
                    unit="recps",
                    queries=(Query(_rate("prectr_trained_impressions_total", "model"), "{{model}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=5,
                    title="Model staleness",
                    description="From the last trained page to the newest watermark, at the pace of the log (in "
                    "event time: dashboard pipeline). Grows while `wait` is 0: the trainer is too slow "
                    "for the log.",
                    unit="s",
                    queries=(Query('model:prectr_model_staleness_seconds:clock{model=~"$model"}', "{{model}}"),),
                    thresholds=((None, "green"), (600, "red")),
                    axis_min=0,
                ),
                Panel(
                    id=6,
                    title="Age of the newest checkpoint",
                    description="Training that a crash would repeat. No checkpoint is written while there is nothing "
                    "to train on.",
                    unit="s",
                    queries=(Query('max(prectr_checkpoint_age_seconds{job="train"})', "checkpoint"),),
                    thresholds=((None, "green"), (600, "red")),
                    axis_min=0,
                ),
            ),
        ),
        Row(
            "Losses and rates",
            (
                Panel(
                    id=7,
                    title="Loss, by part",
                    description="Mean per impression, before the update. `click` is the log loss of clicks; the "
                    "other parts exist where a model has them.",
                    unit="none",
                    queries=(
                        Query(
                            f"{_rate('prectr_loss_nats_total', 'model, loss')} / on (model) group_left "
                            f"{_rate('prectr_trained_impressions_total', 'model')}",
                            "{{model}} {{loss}}",
                        ),
                    ),
                    decimals=4,
                ),
                Panel(
                    id=8,
                    title="Gradient norm",
                    description="Of one batch in 64. Steady growth precedes a loss that is not finite.",
                    unit="short",
                    queries=(Query('max by (model) (prectr_gradient_norm{job="train",model=~"$model"})', "{{model}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=9,
                    title="Learning rate",
                    description="By parameter group: ids (sparse), dense layers, encoder.",
                    unit="none",
                    queries=(
                        Query(
                            'max by (model, param_group) (prectr_learning_rate{job="train",model=~"$model"})',
                            "{{model}} {{param_group}}",
                        ),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=13,
                    title="Loss not finite",
                    description="1: training stopped at a loss that is not finite, and no checkpoint was written "
                    "since. It stops there again until the cause is fixed.",
                    unit="none",
                    queries=(Query('max(prectr_loss_not_finite{job="train"})'),),
                    kind="stat",
                    thresholds=((None, "green"), (1, "red")),
                ),
            ),
        ),
        Row(
            "Hard negatives",
            (
                Panel(
                    id=10,
                    title="Hard negatives per impression",
                    description="Generated in the batch, for models with exposure debias; no data for others.",
                    unit="none",
                    queries=(
                        Query(
                            f"{_rate('prectr_hard_negatives_total', 'model')} / "
                            f"{_rate('prectr_trained_impressions_total', 'model')}",
                            "{{model}}",
                        ),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=11,
                    title="Margin violation rate",
                    description="Share of the hard negatives within the margin, which still produce a gradient. Near "
                    "0 they are too easy.",
                    unit="percentunit",
                    queries=(
                        Query(
                            f"{_rate('prectr_margin_violations_total', 'model')} / "
                            f"{_rate('prectr_hard_negatives_total', 'model')}",
                            "{{model}}",
                        ),
                    ),
                    axis_min=0,
                    axis_max=1,
                ),
                Panel(
                    id=12,
                    title="Published quality windows",
                    description="Quality windows per second that the broker has acknowledged, and that were dropped.",
                    unit="recps",
                    queries=(
                        Query(
                            'sum(rate(prectr_quality_windows_published_total{job="train"}[$__rate_interval]))',
                            "published",
                        ),
                        Query(
                            'sum(rate(prectr_quality_windows_dropped_total{job="train"}[$__rate_interval]))', "dropped"
                        ),
                    ),
                    axis_min=0,
                ),
            ),
        ),
    ),
)
