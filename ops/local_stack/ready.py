"""Readiness checks of the services of `make up`."""

import socket
from collections.abc import Callable
from contextlib import closing
from functools import partial
from urllib.error import URLError
from urllib.request import urlopen

from prectr.ops.live.metrics_ports import metrics_port_of
from prectr.ops.local_stack.settings import STREAM_WORKERS, UpSettings

_TIMEOUT = 5.0
_MONITOR_READY = b"reading"
"""The response of the monitor's /health once it has read the topic."""
_ALERT_PAGES = ("/alerts", "/classic/alerts")
"""Where Prometheus lists its alerts: upstream, and in Debian's build, which has no React user interface."""
_METRICS_PREFIX = b"# HELP prectr_"
"""The start of a response with metrics: an exporter responds before its process is ready."""


def readiness_checks(settings: UpSettings) -> dict[str, Callable[[], bool]]:
    """Whether each part answers, by what it is called; in the order in which they come up."""
    local = "http://127.0.0.1:{}{}".format
    exporters = {
        f"stream worker {number}": partial(
            _responds, local(metrics_port_of(settings.metrics_port, f"stream-{number}"), "/metrics"), _METRICS_PREFIX
        )
        for number in range(1, STREAM_WORKERS + 1)
    }
    return {
        "Prometheus": partial(_responds, local(settings.prometheus_port, "/-/ready")),
        "Kafka": partial(_listens, settings.kafka_port),
        **exporters,
        "trainer": partial(_responds, local(settings.metrics_port, "/metrics"), _METRICS_PREFIX),
        "monitor": partial(_responds, local(settings.monitor_port, "/health"), _MONITOR_READY),
    }


def alerts_url(port: int) -> str:
    """The page of the running Prometheus that lists the alerts."""
    pages = [f"http://127.0.0.1:{port}{path}" for path in _ALERT_PAGES]
    return next((page for page in pages if _responds(page)), pages[0])


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.settimeout(_TIMEOUT)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _responds(url: str, prefix: bytes = b"") -> bool:
    try:
        with urlopen(url, timeout=_TIMEOUT) as answer:
            body: bytes = answer.read()
    except (URLError, OSError):
        return False
    return body.startswith(prefix)
