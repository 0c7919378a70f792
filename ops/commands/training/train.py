"""`prectr train`: the online trainer of the live system."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import (
    CheckpointInterval,
    ConfigFile,
    JsonFile,
    KafkaOptions,
    MetricsOptions,
    TrainEndOptions,
    TrainingOptions,
)
from prectr.ops.json_file import write_json
from prectr.ops.settings.loader import load_settings


@with_option_groups
def train(
    kafka: KafkaOptions,
    run_dir: Annotated[Path, typer.Option(help="Folder for checkpoints and the report.")],
    *,
    training: TrainingOptions,
    end: TrainEndOptions,
    checkpoint_interval: CheckpointInterval = 30.0,
    metrics: MetricsOptions,
    config: ConfigFile = None,
    json: JsonFile = None,
) -> None:
    """Train online on training-examples, scoring each page before training on it; write a report at the end.

    Under torchrun several processes train one model: torchrun --nproc-per-node 2 .venv/bin/prectr train ...

    Example: prectr train --bootstrap localhost:9092 --run-dir live --model prectr-v2
    """
    # torch takes seconds to import, and --help needs none.
    from prectr.ops.metrics.broker import unready_without_broker, with_broker_metric  # noqa: PLC0415
    from prectr.ops.metrics.train import train_metrics, unready_reason  # noqa: PLC0415
    from prectr.ops.report.terminal import print_report  # noqa: PLC0415
    from prectr.ops.training.live import LiveTraining, run_training  # noqa: PLC0415
    from prectr.stream.kafka.client.topics import check_topics  # noqa: PLC0415

    end.check()
    exporter = metrics.exporter(with_broker_metric(train_metrics), unready_without_broker(unready_reason))
    settings = load_settings(config, training.settings())
    connection, topics = kafka.connection(), kafka.topics()
    pipeline = replace(settings.pipeline, partitions=check_topics(connection, topics))
    result = run_training(
        LiveTraining(
            connection=connection,
            topics=topics,
            run_dir=run_dir,
            settings=replace(settings, pipeline=pipeline),
            models=training.models or [settings.trainer.model],
            until_end=end.until_end,
            flush=end.flush,
            checkpoint_interval=checkpoint_interval,
        ),
        exporter,
    )
    if result is not None:
        report, page = result
        write_json(json, report)
        print_report(report, page)
