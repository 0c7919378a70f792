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

from prectr.ops.monitor.current_quality import CurrentQuality
from prectr.state.errors import UsageError

Samples = dict[str, list[tuple[dict[str, str], float]]]
"""By the name of the metric: labels and figure."""

_MAX_BYTES: Final = 16 * 1024 * 1024
"""Of an answer: a thousand times what an exporter of ours says."""
_MAX_THREADS: Final = 32
# What is asked is near: a proxy from the environment would only be in the way.
_direct: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ExporterResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What an exporter said. samples: None where it could not be had. trouble: why, in words."""

    url: str
    samples: Samples | None = None
    error: str = ""


class MonitorResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor said. now: None where it could not be had, and why is in `trouble`."""

    url: str
    quality: CurrentQuality | None = None
    error: str = ""


class Scrape(msgspec.Struct, frozen=True, kw_only=True):
    """One round of questions. at: seconds since the epoch."""

    at: float
    exporters: Sequence[ExporterResponse]
    monitor: MonitorResponse


def exporter_url(given: str) -> str:
    """The address of an exporter from what a person gives: `host:port` will do.

    UsageError: it is no address over HTTP.
    """
    return _http_url(given, "/metrics", "--endpoint http://127.0.0.1:9401/metrics")


def monitor_url(given: str) -> str:
    """The address of the monitor's figures from that of its page, or from `host:port`.

    UsageError: it is no address over HTTP.
    """
    return _http_url(given, "/quality.json", "--monitor http://127.0.0.1:9480")


def _http_url(given: str, path: str, example: str) -> str:
    try:
        parts = urlsplit(given if "//" in given else f"http://{given}")
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise UsageError(f"{given!r} is not an address over HTTP: give one as in {example}")
    return parts._replace(path=parts.path.rstrip("/") or path).geturl()


def scrape(exporters: Sequence[str], monitor: str, *, timeout: float, at: float) -> Scrape:
    """Ask all of them side by side; each has so many `seconds`, in which it has said everything or counts as away.

    at: now, seconds since the epoch.
    """
    with ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="ask") as threads:
        quality = threads.submit(scrape_monitor, monitor, timeout)
        responses = list(threads.map(lambda url: scrape_exporter(url, timeout), exporters))
        return Scrape(at=at, exporters=responses, monitor=quality.result())


def scrape_exporter(url: str, timeout: float) -> ExporterResponse:
    """What an exporter says now."""
    samples: Samples = {}
    try:
        for family in text_string_to_metric_families(_fetch(url, timeout).decode()):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((dict(sample.labels), float(sample.value)))
    except _ScrapeError as error:
        return ExporterResponse(url=url, error=str(error))
    # The parser meets some kinds of damage with whatever comes up.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        return ExporterResponse(url=url, error=f"what it says is not in Prometheus' format: {_one_line(error)}")
    if not samples:
        return ExporterResponse(url=url, samples={}, error="it has nothing to say yet")
    if not any(name.startswith("prectr_") for name in samples):
        return ExporterResponse(url=url, error="its metrics are of another program")
    return ExporterResponse(url=url, samples=samples)


def scrape_monitor(url: str, timeout: float) -> MonitorResponse:
    """What the monitor says now."""
    try:
        return MonitorResponse(url=url, quality=msgspec.json.decode(_fetch(url, timeout), type=CurrentQuality))
    except _ScrapeError as error:
        return MonitorResponse(url=url, error=str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return MonitorResponse(url=url, error=f"what it says is not a monitor's quality.json: {_one_line(error)}")


class _ScrapeError(Exception):
    """Why nothing could be had."""


def _fetch(url: str, timeout: float) -> bytes:
    """What is served there; _Unheard where nothing is, or not in time."""
    deadline = time.monotonic() + timeout
    parts: list[bytes] = []
    try:
        with _direct.open(url, timeout=timeout) as answer:
            # Bit by bit: one that dribbles must not hold up the screen.
            while part := answer.read1(1 << 16):
                parts.append(part)
                if time.monotonic() > deadline or sum(map(len, parts)) > _MAX_BYTES:
                    raise _ScrapeError(f"not done in {timeout:g} s, or after {_MAX_BYTES >> 20} MiB")
    except urllib.error.HTTPError as error:
        error.close()
        raise _ScrapeError(f"HTTP {error.code} {error.reason}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise _ScrapeError(f"it does not speak HTTP: {_one_line(error) or type(error).__name__}") from error
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            raise _ScrapeError(f"no answer in {timeout:g} s") from error
        raise _ScrapeError((isinstance(reason, OSError) and reason.strerror) or _one_line(reason)) from error
    return b"".join(parts)


def _one_line(error: object) -> str:
    """An error's words as one line that fits on a screen."""
    text = " ".join(str(error).split())
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
