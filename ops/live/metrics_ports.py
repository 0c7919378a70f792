"""The ports on which the processes of a live run serve their metrics."""

from typing import Final

_FIXED_PORTS: Final = ("train", "monitor")


def metrics_port_of(first: int, name: str) -> int:
    """The trainer's port is the first, the monitor's the next, those of the stream workers follow.

    No port depends on the number of stream workers: with one more, Prometheus goes on scraping the others where they
    were.
    """
    if name in _FIXED_PORTS:
        return first + _FIXED_PORTS.index(name)
    return first + len(_FIXED_PORTS) - 1 + int(name.removeprefix("stream-"))
