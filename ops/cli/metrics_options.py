"""The options of a command that can be watched with Prometheus, and what they start."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from prectr.state.errors import UsageError

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from prectr.ops.metrics.exporter import Exporter

MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Serve metrics to Prometheus on this port: with 9401, http://127.0.0.1:9401/metrics. 0 takes one that is "
        "free, and says which.",
        show_default=False,
    ),
]
MetricsAddress = Annotated[
    str | None,
    typer.Option(
        help="Address to serve metrics on, as in 0.0.0.0 for all of this machine's; by default 127.0.0.1.",
        show_default=False,
    ),
]

Snapshot = TypeVar("Snapshot")


def optional_exporter(
    render: "Callable[[Snapshot], Iterator[Metric]]", port: int | None, address: str | None
) -> "AbstractContextManager[Exporter[Snapshot] | None]":
    """The exporter that --metrics-port and --metrics-address ask for, started on entry; None where they ask for none.

    UsageError: an address without a port. On entry, as Exporter.
    """
    if port is not None:
        return _running_exporter(render, port, address)
    if address is not None:
        raise UsageError(f"--metrics-address {address} goes with --metrics-port: name the port too")
    return nullcontext()


@contextmanager
def _running_exporter(
    render: "Callable[[Snapshot], Iterator[Metric]]", port: int, address: str | None
) -> "Iterator[Exporter[Snapshot]]":
    from prectr.ops.metrics.exporter import LOOPBACK, Exporter  # noqa: PLC0415 (most runs are not watched)

    with Exporter(render, port, LOOPBACK if address is None else address) as exporter:
        yield exporter
