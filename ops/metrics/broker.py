"""Whether Kafka answers, as every process that is connected to it exports it and reports it to probes.

Both look at the time of the request, not at a snapshot: a process that waits for Kafka may not update its own.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.catalogue.progress_and_lag import BROKER_UNREACHABLE_SECONDS
from prectr.stream.kafka.client.reachability import broker_unreachable_seconds

Snapshot = TypeVar("Snapshot")


def with_broker_metric(render: Callable[[Snapshot], Iterator[Metric]]) -> Callable[[Snapshot], Iterator[Metric]]:
    """Return a renderer of metrics that adds for how long Kafka has not answered, once the process is connected."""

    def render_both(snapshot: Snapshot) -> Iterator[Metric]:
        seconds = broker_unreachable_seconds()
        if seconds is not None:
            yield BROKER_UNREACHABLE_SECONDS.value(seconds)
        yield from render(snapshot)

    return render_both


def unready_without_broker(unready_reason: Callable[[Snapshot], str]) -> Callable[[Snapshot], str]:
    """Return why a process is not ready: Kafka does not answer, or what `unready_reason` says."""

    def reason(snapshot: Snapshot) -> str:
        seconds = broker_unreachable_seconds()
        return f"Kafka has not answered for {seconds:.0f} s" if seconds else unready_reason(snapshot)

    return reason
