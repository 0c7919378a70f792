"""`prectr monitor`: serves the quality of all trainers as a page, as JSON and to Prometheus."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import MetricsOptions, SessionTimeout, SystemOptions
from prectr.ops.cli.signals import stop_signals

if TYPE_CHECKING:
    from prectr.ops.monitor.current_quality import MonitorSnapshot


@with_option_groups
def monitor(
    system: SystemOptions,
    data_dir: Annotated[Path, typer.Option(help="Folder for the tables of this monitor; one per process.")],
    *,
    port: Annotated[
        int,
        typer.Option(help="Port of the page (/), the same numbers as /quality.json, and /readyz; 0: any free port."),
    ] = 9480,
    address: Annotated[str, typer.Option(help="Address to serve them on; 0.0.0.0 for all.")] = "127.0.0.1",
    metrics: MetricsOptions,
    session_timeout: SessionTimeout = 10.0,
) -> None:
    """Merge the quality that all trainers publish, in windows of 5 min, 1 h and 24 h of event time.

    Reads the topic model-quality. A second monitor is a standby.

    Example: prectr monitor --bootstrap localhost:9092 --data-dir monitor --metrics-port 9490
    """
    from prectr.ops.limits.check import check_limits  # noqa: PLC0415
    from prectr.ops.limits.needs import monitor_needs  # noqa: PLC0415
    from prectr.ops.metrics.broker import unready_without_broker, with_broker_metric  # noqa: PLC0415
    from prectr.ops.monitor.current_quality import unready_reason  # noqa: PLC0415 (Faust takes a while to import)
    from prectr.ops.monitor.metrics import monitor_metrics  # noqa: PLC0415
    from prectr.ops.monitor.reader import MonitorSettings, run_monitor  # noqa: PLC0415
    from prectr.ops.monitor.server import PageServer  # noqa: PLC0415
    from prectr.state.lock import FolderLock  # noqa: PLC0415

    exporter_context = metrics.exporter(with_broker_metric(monitor_metrics), unready_without_broker(unready_reason))
    settings = MonitorSettings(system.connection(), system.topics(), system.group_prefix, data_dir, session_timeout)
    hosts = metrics.allowed_host or ()
    check_limits(monitor_needs({"data folder": data_dir}))
    with exporter_context as exporter, PageServer(port, address, allowed_hosts=hosts) as page, stop_signals() as stop:
        lock = FolderLock(data_dir)

        def on_update(snapshot: "MonitorSnapshot") -> None:
            page.update(snapshot)
            if exporter is not None:
                exporter.update(snapshot)

        try:
            run_monitor(settings, stop=stop, on_update=on_update)
        finally:
            lock.release()
