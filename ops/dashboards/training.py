"""The trainer: where its time goes, what its losses are, its hard negatives."""

from typing import Final

from prectr.ops.dashboards.board import Dashboard, Panel, Query, Row


def _rate(metric: str, by: str, matchers: str = "") -> str:
    return f'sum by ({by}) (rate({metric}{{job="train",model=~"$model"{matchers}}}[$__rate_interval]))'


TRAINING: Final = Dashboard(
    name="training",
    title="PRECTR: training",
    description="Where the trainer's time goes, what it learns by, and how far it has come.",
    rows=(
        Row(
            "Where time goes",
            (
                Panel(
                    id=1,
                    title="Share of each step",
                    description="`wait` is for examples, `collate` makes tensors of them. Much wait: it keeps up. Much "
                    "collate: the device starves.",
                    unit="percentunit",
                    queries=(Query("phase:prectr_train_seconds:ratio_rate5m", "{{phase}}"),),
                    kind="stack",
                    axis_min=0,
                    axis_max=1,
                ),
                Panel(
                    id=2,
                    title="Time of a batch, by step",
                    description="Mean of each model's batches.",
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
                    description="Share of the time in which the device computed nothing.",
                    unit="percentunit",
                    queries=(Query('max(prectr_device_idle_ratio{job="train"})', "idle"),),
                    axis_min=0,
                    axis_max=1,
                ),
                Panel(
                    id=4,
                    title="Impressions learned",
                    description="A second, by model.",
                    unit="recps",
                    queries=(Query(_rate("prectr_trained_impressions_total", "model"), "{{model}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=5,
                    title="Model behind the stream",
                    description="From the last page learned to where the stream is, at the pace of the log (event time: "
                    "dashboard pipeline). Grows while `wait` is 0: the trainer is too slow for the log.",
                    unit="s",
                    queries=(Query('model:prectr_model_staleness_seconds:clock{model=~"$model"}', "{{model}}"),),
                    thresholds=((None, "green"), (600, "red")),
                    axis_min=0,
                ),
                Panel(
                    id=6,
                    title="Age of the newest checkpoint",
                    description="What a crash would throw back. None is written while nothing comes to learn from.",
                    unit="s",
                    queries=(Query('max(prectr_checkpoint_age_seconds{job="train"})', "checkpoint"),),
                    thresholds=((None, "green"), (600, "red")),
                    axis_min=0,
                ),
            ),
        ),
        Row(
            "What it learns by",
            (
                Panel(
                    id=7,
                    title="Loss, by part",
                    description="Mean an impression, before it was learned from. `click` is the log loss of clicks; the "
                    "others are there where a model has them.",
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
                    title="Norm of the gradient",
                    description="Of one batch in 64. That it grows and grows comes before a loss that is not finite.",
                    unit="short",
                    queries=(Query('max by (model) (prectr_gradient_norm{job="train",model=~"$model"})', "{{model}}"),),
                    axis_min=0,
                ),
                Panel(
                    id=9,
                    title="Learning rate",
                    description="By what is learned with it: ids, dense layers, encoder.",
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
                    description="1: training ended at a loss that is not finite, and nothing was saved since. It ends there "
                    "again until the cause is gone.",
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
                    title="Hard negatives an impression",
                    description="Made in the batch, for models with exposure debias; no data for others.",
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
                    title="Margin hit rate",
                    description="Share of the hard negatives that are inside the margin, and so still teach something. Near "
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
                    title="Quality published",
                    description="Stretches of quality a second that have arrived at the broker, and those that never did.",
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
