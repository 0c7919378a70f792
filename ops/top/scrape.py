"""Reads exporters and the monitor over HTTP; failures become error messages."""

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
"""By name of the metric: labels and value."""

_MAX_BYTES: Final = 16 * 1024 * 1024
"""Maximum size of a response: a thousand times that of one of our exporters."""
_MAX_THREADS: Final = 32
# The endpoints are on the local network: ignore proxy settings of the environment.
_direct: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ExporterResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The response of an exporter. samples: None if the scrape failed. error: the reason."""

    url: str
    samples: Samples | None = None
    error: str = ""


class MonitorResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The response of the monitor. quality: None if the request failed. error: the reason."""

    url: str
    quality: CurrentQuality | None = None
    error: str = ""


class Scrape(msgspec.Struct, frozen=True, kw_only=True):
    """The responses of one poll. at: seconds since the epoch."""

    at: float
    exporters: Sequence[ExporterResponse]
    monitor: MonitorResponse


def exporter_url(given: str) -> str:
    """Complete `host:port` or a URL to the URL of an exporter; raises UsageError if it is not an HTTP URL."""
    return _http_url(given, "/metrics", "--endpoint http://127.0.0.1:9401/metrics")


def monitor_url(given: str) -> str:
    """Complete `host:port` or the monitor's URL to that of its JSON; raises UsageError if it is not an HTTP URL."""
    return _http_url(given, "/quality.json", "--monitor http://127.0.0.1:9480")


def _http_url(given: str, path: str, example: str) -> str:
    try:
        parts = urlsplit(given if "//" in given else f"http://{given}")
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise UsageError(f"{given!r} is not an HTTP URL such as {example}")
    return parts._replace(path=parts.path.rstrip("/") or path).geturl()


def scrape(exporters: Sequence[str], monitor: str, *, timeout: float, at: float) -> Scrape:
    """Read all endpoints in parallel.

    Args:
        exporters: URLs of metrics endpoints.
        monitor: URL of the monitor's JSON.
        timeout: seconds for each complete response.
        at: now, in seconds since the epoch.
    """
    with ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="scrape") as threads:
        quality = threads.submit(scrape_monitor, monitor, timeout)
        responses = list(threads.map(lambda url: scrape_exporter(url, timeout), exporters))
        return Scrape(at=at, exporters=responses, monitor=quality.result())


def scrape_exporter(url: str, timeout: float) -> ExporterResponse:
    """Scrape an exporter."""
    samples: Samples = {}
    try:
        for family in text_string_to_metric_families(_fetch(url, timeout).decode()):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((dict(sample.labels), float(sample.value)))
    except _ScrapeError as error:
        return ExporterResponse(url=url, error=str(error))
    # The parser raises various exceptions on malformed input.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        return ExporterResponse(url=url, error=f"not in the Prometheus format: {_one_line(error)}")
    if not samples:
        return ExporterResponse(url=url, samples={}, error="no metrics yet")
    if not any(name.startswith("prectr_") for name in samples):
        return ExporterResponse(url=url, error="metrics of another program")
    return ExporterResponse(url=url, samples=samples)


def scrape_monitor(url: str, timeout: float) -> MonitorResponse:
    """Read the JSON of the monitor."""
    try:
        return MonitorResponse(url=url, quality=msgspec.json.decode(_fetch(url, timeout), type=CurrentQuality))
    except _ScrapeError as error:
        return MonitorResponse(url=url, error=str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return MonitorResponse(url=url, error=f"not the quality.json of a monitor: {_one_line(error)}")


class _ScrapeError(Exception):
    """Why a request failed."""


def _fetch(url: str, timeout: float) -> bytes:
    """Read a URL; raises _ScrapeError if it fails or takes too long."""
    deadline = time.monotonic() + timeout
    parts: list[bytes] = []
    try:
        with _direct.open(url, timeout=timeout) as answer:
            # In chunks, so that a slow response cannot block the screen.
            while part := answer.read1(1 << 16):
                parts.append(part)
                if time.monotonic() > deadline or sum(map(len, parts)) > _MAX_BYTES:
                    raise _ScrapeError(f"response took over {timeout:g} s or was over {_MAX_BYTES >> 20} MiB")
    except urllib.error.HTTPError as error:
        error.close()
        raise _ScrapeError(f"HTTP {error.code} {error.reason}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise _ScrapeError(f"not HTTP: {_one_line(error) or type(error).__name__}") from error
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            raise _ScrapeError(f"no response in {timeout:g} s") from error
        raise _ScrapeError((isinstance(reason, OSError) and reason.strerror) or _one_line(reason)) from error
    return b"".join(parts)


def _one_line(error: object) -> str:
    """An error message as one printable line of at most 80 characters."""
    text = " ".join(str(error).split())
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
