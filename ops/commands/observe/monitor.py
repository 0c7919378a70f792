"""`prectr monitor`: the quality of the whole cluster, served as a page, as JSON and to Prometheus."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prectr.ops.cli.kafka_options import Bootstrap, ClientConfig, ConnectTimeout, GroupPrefix, TopicPrefix, connection
from prectr.ops.cli.metrics_options import MetricsAddress, MetricsPort, optional_exporter
from prectr.ops.cli.signals import stop_signals

if TYPE_CHECKING:
    from prectr.ops.monitor.current_quality import MonitorSnapshot


def monitor(
    bootstrap: Bootstrap,
    data_dir: Annotated[Path, typer.Option(help="Folder for this monitor's tables; one a process.")],
    port: Annotated[
        int, typer.Option(help="Serve the page (/), the same figures as /quality.json, and /health; 0: any free port.")
    ] = 9480,
    address: Annotated[str, typer.Option(help="Address to serve them on, as in 0.0.0.0 for all.")] = "127.0.0.1",
    metrics_port: MetricsPort = None,
    metrics_address: MetricsAddress = None,
    session_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which another monitor takes over from a dead one.")
    ] = 10.0,
    topic_prefix: TopicPrefix = "",
    group_prefix: GroupPrefix = "prectr-",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
) -> None:
    """Add up what all trainers publish of their quality, in windows of 5 min, 1 h and 24 h of event time.

    Reads the topic model-quality. A second monitor stands by.

    Example: prectr monitor --bootstrap localhost:9092 --data-dir monitor --metrics-port 9490
    """
    from prectr.ops.monitor.metrics import monitor_metrics  # noqa: PLC0415 (Faust takes a while to import)
    from prectr.ops.monitor.reader import MonitorSettings, run_monitor  # noqa: PLC0415
    from prectr.ops.monitor.server import PageServer  # noqa: PLC0415
    from prectr.state.lock import FolderLock  # noqa: PLC0415
    from prectr.stream.kafka.client.topics import Topics  # noqa: PLC0415

    exporter = optional_exporter(monitor_metrics, metrics_port, metrics_address)
    settings = MonitorSettings(
        connection(bootstrap, client_config, connect_timeout),
        Topics(topic_prefix),
        group_prefix,
        data_dir,
        session_timeout,
    )
    with exporter as metrics, PageServer(port, address) as page, stop_signals() as stop:
        lock = FolderLock(data_dir)

        def on_update(snapshot: "MonitorSnapshot") -> None:
            page.update(snapshot)
            if metrics is not None:
                metrics.update(snapshot)

        try:
            run_monitor(settings, stop=stop, on_update=on_update)
        finally:
            lock.release()
