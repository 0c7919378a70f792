"""`prectr run`: the whole live system on one machine, or a replay without a broker."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.ops.cli.console import log_settings
from prectr.ops.cli.kafka_options import ClientConfig, ConnectTimeout, GroupPrefix, TopicPrefix, connection
from prectr.ops.settings.loader import load_settings
from prectr.state.errors import UsageError


def run(
    files: Annotated[
        list[str] | None, typer.Argument(help="With --embedded: logs, read in this order.", show_default=False)
    ] = None,
    bootstrap: Annotated[
        str | None, typer.Option(help="Kafka brokers, host:port, several with commas.", show_default=False)
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="No broker: replay the files into --run-dir, in this process.")
    ] = False,
    run_dir: Annotated[Path, typer.Option(help="Folder for checkpoints, the report and the processes' logs.")] = Path(
        "live"
    ),
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder for the stages' state; by default state in --run-dir.")
    ] = None,
    stream_workers: Annotated[int, typer.Option(min=1, max=128, help="Stream processes to start.")] = 1,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, max=128, help="Partitions of topics that are made; by default as many as are there, or 4."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="lr, dnn, wide-deep, wide-deep+, prectr or prectr-v2; several with commas share a pass."),
    ] = None,
    batch_pages: Annotated[int | None, typer.Option(help="Pages a training batch.")] = None,
    batch_span: Annotated[
        str | None, typer.Option(help="Event time a training batch spans, such as 60s or 1d.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the weights at the start.")] = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop when all that is there now has gone through.")
    ] = False,
    flush: Annotated[
        bool, typer.Option("--flush", help="With --until-end: the log has ended for good, close and learn everything.")
    ] = False,
    checkpoint_interval: Annotated[
        float, typer.Option(min=0, help="Seconds between checkpoints; the figures move with them.")
    ] = 5.0,
    idle_timeout: Annotated[
        float,
        typer.Option(min=5, help="Seconds without input after which nobody waits for a partition's open pages."),
    ] = 60.0,
    snapshots: Annotated[
        str | None,
        typer.Option(help="Where to keep snapshots of the state, as for prectr stream.", show_default=False),
    ] = None,
    snapshot_interval: Annotated[float, typer.Option(min=0.1, help="Seconds between snapshots.")] = 60.0,
    session_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which another process takes over from a dead one.")
    ] = 10.0,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65_000,
            help="Serve metrics to Prometheus: the trainer's on this port, the stream processes' on the next ones, the "
            "monitor's on the one behind.",
            show_default=False,
        ),
    ] = None,
    monitor_port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Run a monitor too, and serve its page on this port.", show_default=False),
    ] = None,
    topic_prefix: TopicPrefix = "",
    group_prefix: GroupPrefix = "prectr-",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    config: Annotated[Path | None, typer.Option(help="Settings, a TOML file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file too, for a program.")] = None,
) -> None:
    """Run the live system on this machine: stream processes and a trainer, kept running and shown.

    Makes the topics that are missing. Ctrl-C ends all of it, with everything committed; the same command goes on.

    Example: prectr run --bootstrap localhost:9092 --run-dir live
    """
    if embedded:
        if bootstrap is not None:
            raise UsageError("--embedded and --bootstrap: a replay needs no broker; leave one of them out")
        if not files:
            raise UsageError("--embedded: name the files to replay, as in prectr run --embedded log.jsonl.gz")
        if metrics_port is not None:
            raise UsageError(
                "--metrics-port is for a broker here: prectr replay --metrics-port serves a replay's metrics"
            )
        if monitor_port is not None:
            raise UsageError("--monitor-port is for a broker: a replay's report.html has all that a monitor would show")
        if until_end or flush:
            raise UsageError("--until-end and --flush are for a broker: a replay always goes to the end and flushes")
        _replay(files, run_dir, model, partitions, batch_pages, batch_span, seed, checkpoint_interval, config, json)
        return
    if bootstrap is None:
        raise UsageError("name a broker, as in --bootstrap localhost:9092, or replay files with --embedded FILE…")
    if files:
        raise UsageError(f"{files[0]}: a live run reads from Kafka; send files with prectr load, or use --embedded")
    if flush and not until_end:
        raise UsageError("--flush goes with --until-end: a log that goes on has no last page")
    if monitor_port is not None and until_end:
        raise UsageError("--monitor-port: a monitor has no end; run prectr monitor by itself beside --until-end")
    from prectr.ops.live.run import LiveRun, report_path, run_live  # noqa: PLC0415
    from prectr.ops.live.supervisor import RestartPolicy  # noqa: PLC0415
    from prectr.stream.kafka.client.topics import Topics  # noqa: PLC0415

    # What is wrong with the settings is said here, once, before anything is started.
    load_settings(
        config, {"model": (model or "").split(",")[0] or None, "batch_pages": batch_pages, "batch_span": batch_span}
    )
    common_flags = _flags(
        bootstrap=bootstrap,
        topic_prefix=topic_prefix,
        client_config=client_config,
        connect_timeout=connect_timeout,
        config=config,
        flush=flush,
    )
    run_live(
        LiveRun(
            connection=connection(bootstrap, client_config, connect_timeout),
            topics=Topics(topic_prefix),
            group_prefix=group_prefix,
            state_dir=state_dir or run_dir / "state",
            run_dir=run_dir,
            stream_workers=stream_workers,
            partitions=partitions,
            until_end=until_end,
            metrics_port=metrics_port,
            common_flags=common_flags,
            log_flags=log_settings.flags,
            stream_flags=_flags(
                group_prefix=group_prefix,
                session_timeout=session_timeout,
                idle_timeout=idle_timeout,
                snapshots=snapshots,
                snapshot_interval=snapshot_interval,
            ),
            train_flags=_flags(
                model=model,
                batch_pages=batch_pages,
                batch_span=batch_span,
                seed=seed,
                checkpoint_interval=checkpoint_interval,
                json=json,
            ),
            monitor_flags=None
            if monitor_port is None
            else _flags(
                bootstrap=bootstrap,
                port=monitor_port,
                topic_prefix=topic_prefix,
                group_prefix=group_prefix,
                client_config=client_config,
                connect_timeout=connect_timeout,
                session_timeout=session_timeout,
            ),
            restart_policy=RestartPolicy(),
        )
    )
    _print_report(report_path(run_dir))


def _replay(
    files: list[str],
    run_dir: Path,
    model: str | None,
    partitions: int | None,
    batch_pages: int | None,
    batch_span: str | None,
    seed: int | None,
    checkpoint_interval: float,
    config: Path | None,
    json: Path | None,
) -> None:
    from prectr.ops.commands.pipeline.replay import replay  # noqa: PLC0415

    replay(
        files,
        run_dir,
        model=model,
        partitions=partitions,
        batch_pages=batch_pages,
        batch_span=batch_span,
        seed=seed,
        checkpoint_interval=checkpoint_interval,
        config=config,
        json=json,
    )


def _flags(**values: object) -> list[str]:
    """The flags of a command, by the names of their options; those that are not set are left out."""
    flags = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            flags.append(flag)
        elif value is not None and value is not False:
            flags.append(f"{flag}={value}")
    return flags


def _print_report(report: Path) -> None:
    """Print the trainer's report, if it has written one."""
    from prectr.ops.commands.pipeline.replay import print_report  # noqa: PLC0415
    from prectr.ops.report import Report  # noqa: PLC0415

    if report.exists():
        print_report(msgspec.json.decode(report.read_bytes(), type=Report), report.with_suffix(".html"))
