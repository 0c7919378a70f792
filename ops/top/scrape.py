"""Asks exporters and the monitor over HTTP; what does not answer, or not in their language, is said in words."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import urlsplit

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from prectr.ops.monitor.current_quality import QualityNow
from prectr.state.errors import UsageError

Samples = dict[str, list[tuple[dict[str, str], float]]]
"""By the name of the metric: labels and figure."""

_MOST_BYTES: Final = 16 * 1024 * 1024
"""Of an answer: a thousand times what an exporter of ours says."""
_AT_ONCE: Final = 32
# What is asked is near: a proxy from the environment would only be in the way.
_direct: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an exporter said. samples: None where it could not be had. trouble: why, in words."""

    url: str
    samples: Samples | None = None
    trouble: str = ""


class MonitorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor said. now: None where it could not be had, and why is in `trouble`."""

    url: str
    now: QualityNow | None = None
    trouble: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One round of questions. at: seconds since the epoch."""

    at: float
    exporters: Sequence[Answer]
    monitor: MonitorAnswer


def endpoint(given: str) -> str:
    """The address of an exporter from what a person gives: `host:port` will do.

    UsageError: it is no address over HTTP.
    """
    return _address(given, "/metrics", "--endpoint http://127.0.0.1:9401/metrics")


def monitor_page(given: str) -> str:
    """The address of the monitor's figures from that of its page, or from `host:port`.

    UsageError: it is no address over HTTP.
    """
    return _address(given, "/quality.json", "--monitor http://127.0.0.1:9480")


def _address(given: str, path: str, example: str) -> str:
    try:
        parts = urlsplit(given if "//" in given else f"http://{given}")
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise UsageError(f"{given!r} is not an address over HTTP: give one as in {example}")
    return parts._replace(path=parts.path.rstrip("/") or path).geturl()


def ask(exporters: Sequence[str], monitor: str, *, seconds: float, at: float) -> Asked:
    """Ask all of them side by side; each has so many `seconds`, in which it has said everything or counts as away.

    at: now, seconds since the epoch.
    """
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ask") as threads:
        quality = threads.submit(ask_monitor, monitor, seconds)
        answers = list(threads.map(lambda url: ask_exporter(url, seconds), exporters))
        return Asked(at=at, exporters=answers, monitor=quality.result())


def ask_exporter(url: str, seconds: float) -> Answer:
    """What an exporter says now."""
    samples: Samples = {}
    try:
        for family in text_string_to_metric_families(_fetched(url, seconds).decode()):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((dict(sample.labels), float(sample.value)))
    except _Unheard as error:
        return Answer(url=url, trouble=str(error))
    # The parser meets some kinds of damage with whatever comes up.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        return Answer(url=url, trouble=f"what it says is not in Prometheus' format: {_short(error)}")
    if not samples:
        return Answer(url=url, samples={}, trouble="it has nothing to say yet")
    if not any(name.startswith("prectr_") for name in samples):
        return Answer(url=url, trouble="its metrics are of another program")
    return Answer(url=url, samples=samples)


def ask_monitor(url: str, seconds: float) -> MonitorAnswer:
    """What the monitor says now."""
    try:
        return MonitorAnswer(url=url, now=msgspec.json.decode(_fetched(url, seconds), type=QualityNow))
    except _Unheard as error:
        return MonitorAnswer(url=url, trouble=str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return MonitorAnswer(url=url, trouble=f"what it says is not a monitor's quality.json: {_short(error)}")


class _Unheard(Exception):
    """Why nothing could be had."""


def _fetched(url: str, seconds: float) -> bytes:
    """What is served there; _Unheard where nothing is, or not in time."""
    until = time.monotonic() + seconds
    parts: list[bytes] = []
    try:
        with _direct.open(url, timeout=seconds) as answer:
            # Bit by bit: one that dribbles must not hold up the screen.
            while part := answer.read1(1 << 16):
                parts.append(part)
                if time.monotonic() > until or sum(map(len, parts)) > _MOST_BYTES:
                    raise _Unheard(f"not done in {seconds:g} s, or after {_MOST_BYTES >> 20} MiB")
    except urllib.error.HTTPError as error:
        error.close()
        raise _Unheard(f"HTTP {error.code} {error.reason}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise _Unheard(f"it does not speak HTTP: {_short(error) or type(error).__name__}") from error
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            raise _Unheard(f"no answer in {seconds:g} s") from error
        raise _Unheard((isinstance(reason, OSError) and reason.strerror) or _short(reason)) from error
    return b"".join(parts)


def _short(error: object) -> str:
    """An error's words as one line that fits on a screen."""
    words = " ".join(str(error).split())
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
