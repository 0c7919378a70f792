"""When each part of a run of `make up` answers."""

import socket
from collections.abc import Callable
from contextlib import closing
from functools import partial
from urllib.error import URLError
from urllib.request import urlopen

from prectr.ops.local_stack.settings import STREAMS, UpSettings

_SECONDS = 5.0
_READING = b"reading"
"""What the monitor's /health says once it has read all that is there."""
_FIGURES = b"# HELP prectr_"
"""How metrics begin once there are any: an exporter answers before its process has looked at its settings."""


def parts(settings: UpSettings) -> dict[str, Callable[[], bool]]:
    """Whether each part answers, by what it is called; in the order in which they come up."""
    local = "http://127.0.0.1:{}{}".format
    exporters = {
        f"stream process {number}": partial(_answers, local(settings.metrics_port + number, "/metrics"), _FIGURES)
        for number in range(1, STREAMS + 1)
    }
    return {
        "Prometheus": partial(_answers, local(settings.prometheus_port, "/-/ready")),
        "Kafka": partial(_listens, settings.kafka_port),
        **exporters,
        "trainer": partial(_answers, local(settings.metrics_port, "/metrics"), _FIGURES),
        "monitor": partial(_answers, local(settings.monitor_port, "/health"), _READING),
    }


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.settimeout(_SECONDS)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str, says: bytes = b"") -> bool:
    try:
        with urlopen(url, timeout=_SECONDS) as answer:
            said: bytes = answer.read()
    except (URLError, OSError):
        return False
    return said.startswith(says)
