"""`prectr train`: the online trainer of the live system."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ops.config import load_settings
from ops.console import meter
from ops.interrupt import stop_signals
from ops.kafka_options import Bootstrap, ClientConfig, TopicPrefix, Wait, connection
from state.errors import UsageError


def train(
    bootstrap: Bootstrap,
    run_dir: Annotated[Path, typer.Option(help="Folder for checkpoints and the report.")],
    model: Annotated[
        str | None, typer.Option(help="lr, dnn, wide-deep or wide-deep+; several with commas share one pass.")
    ] = None,
    batch_pages: Annotated[int | None, typer.Option(help="Pages a training batch.")] = None,
    batch_span: Annotated[
        str | None, typer.Option(help="Event time a training batch spans, such as 60s or 1d.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights at the start.")] = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop when the stages have been told to end and all of it is learned.")
    ] = False,
    flush: Annotated[bool, typer.Option("--flush", help="With --until-end: train the last batch too.")] = False,
    cut_every: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints.")] = 30.0,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    wait: Wait = 5.0,
    config: Annotated[Path | None, typer.Option(help="Settings, a TOML file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file too, for a program.")] = None,
) -> None:
    """Train on training-examples as they come, each page scored before it is learned from; report on stopping.

    Under torchrun several processes train one model: torchrun --nproc-per-node 2 .venv/bin/prectr train …

    Example: prectr train --bootstrap localhost:9092 --run-dir live --model wide-deep+
    """
    from model.ranks import join_ranks  # noqa: PLC0415 (torch takes seconds to import, and --help needs none)
    from ops.commands.replay import show  # noqa: PLC0415
    from ops.report import write_report  # noqa: PLC0415
    from ops.scored import identity, make_report, make_scored, note  # noqa: PLC0415
    from stream.kafka.topics import Topics, check_topics  # noqa: PLC0415
    from stream.kafka.training import LiveTraining  # noqa: PLC0415

    if flush and not until_end:
        raise UsageError("--flush goes with --until-end: a log that goes on has no last batch")
    models = [name.strip() for name in model.split(",") if name.strip()] if model is not None else []
    overrides = {"model": models[0] if models else None, "batch_pages": batch_pages, "batch_span": batch_span}
    settings = load_settings(config, {**overrides, "seed": seed})
    models = models or [settings.trainer.model]
    broker, names = connection(bootstrap, client_config, wait), Topics(topic_prefix)
    pipeline = replace(settings.pipeline, partitions=check_topics(broker, names))
    settings = replace(settings, pipeline=pipeline)
    with ExitStack() as stack:
        ranks = join_ranks(settings.trainer.device)
        scored = make_scored(settings, models, ranks=ranks)
        run = LiveTraining(
            broker,
            names,
            run_dir,
            config=identity(settings, models),
            sinks=scored,
            cut_every=cut_every,
            peers=ranks,
        )
        stack.callback(run.close)
        leads = ranks is None or ranks.rank == 0
        with ExitStack() as watched:
            shown = watched.enter_context(meter("train", 0)) if leads else None
            stop = watched.enter_context(stop_signals())

            def tell(run: LiveTraining) -> None:
                if shown is not None:
                    shown.update(run.tally.pages, note(run.tally.pages, scored))

            run.run(until_end=until_end, flush=flush, stop=stop, progress=tell)
        if ranks is not None:
            ranks.leave()
        if not leads:
            return
        report = make_report(run, scored, settings, dead_letters={}, out_of_order=run.reader.out_of_order)
        page = write_report(run_dir, report)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    show(report, page)
