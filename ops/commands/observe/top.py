"""`prectr top`: the live system on one screen."""

from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.signals import stop_signals


def top(
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="Metrics of a process, host:port or a whole address; may be given several times. By default ports "
            "9401 to 9416 and 9490 of this machine, of which those are shown that answer.",
            show_default=False,
        ),
    ] = None,
    monitor: Annotated[
        str, typer.Option(help="The monitor's page: quality by window, and its last day as lines.")
    ] = "http://127.0.0.1:9480",
    interval: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one screen and end; exit code 1 if nothing answers.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option(help="Write what is shown to this file too, for a program; anew at each look.")
    ] = None,
) -> None:
    """Watch the live system: pages, outcomes, lag, quality by segment, checkpoints and tasks, on one screen.

    Asks the exporters (--metrics-port of run, stream, train, replay and monitor) and the monitor's page; disturbs
    nothing. What goes away stays on the screen, as away. Ctrl-C ends it.

    Example: prectr top
    Example: prectr top --endpoint 10.0.0.5:9401 --endpoint 10.0.0.6:9401 --monitor 10.0.0.5:9480
    """
    from prectr.ops.top.poller import Poller  # noqa: PLC0415
    from prectr.ops.top.scrape import exporter_url as address  # noqa: PLC0415 (not needed for --help)
    from prectr.ops.top.scrape import monitor_url  # noqa: PLC0415
    from prectr.ops.top.show import DEFAULT_ENDPOINTS, print_once, watch  # noqa: PLC0415

    explicit = bool(endpoint)
    exporters = [address(each) for each in endpoint or DEFAULT_ENDPOINTS]
    poller = Poller(exporters, monitor_url(monitor), explicit=explicit)
    if once:
        print_once(poller, json)
        return
    with stop_signals() as stop:
        watch(poller, interval=interval, stop=stop, json=json)
