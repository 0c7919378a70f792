"""`prectr top`: shows the live system on one screen."""

from typing import Annotated

import typer

from prectr.ops.cli.options import JsonFile
from prectr.ops.cli.signals import stop_signals


def top(
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="Metrics endpoint of a process, host:port or URL; repeatable. Default: those of ports 9401 to 9416 "
            "and 9490 of this machine that respond.",
            show_default=False,
        ),
    ] = None,
    monitor: Annotated[
        str, typer.Option(help="URL of the monitor: quality by window and the timeline of the last day.")
    ] = "http://127.0.0.1:9480",
    interval: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two updates.")] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one screen and exit; exit code 1 if no endpoint responds.")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Show the live system on one screen: pages, outcomes, lag, quality by segment, checkpoints and tasks.

    Scrapes the metrics endpoints (--metrics-port of run, stream, train, replay and monitor) and reads the monitor's
    page. Endpoints that stop responding stay on the screen, marked as down. --json is rewritten at every update.
    Ctrl-C exits.

    Example: prectr top
    Example: prectr top --endpoint 10.0.0.5:9401 --endpoint 10.0.0.6:9401 --monitor 10.0.0.5:9480
    """
    from prectr.ops.top.poller import Poller  # noqa: PLC0415
    from prectr.ops.top.scrape import exporter_url, monitor_url  # noqa: PLC0415
    from prectr.ops.top.show import DEFAULT_ENDPOINTS, print_once, watch  # noqa: PLC0415

    exporters = [exporter_url(each) for each in endpoint or DEFAULT_ENDPOINTS]
    poller = Poller(exporters, monitor_url(monitor), explicit=bool(endpoint))
    if once:
        print_once(poller, json)
        return
    with stop_signals() as stop:
        watch(poller, interval=interval, stop=stop, json=json)
