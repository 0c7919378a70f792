"""Polls exporters and the monitor repeatedly; derives rates, trends, and which exporters are down."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from prectr.ops.metrics.quality import WHOLE_RUN
from prectr.ops.monitor.current_quality import STATUS_READING
from prectr.ops.top.scrape import ExporterResponse, MonitorResponse, Scrape, scrape
from prectr.ops.top.stats import SEGMENTS, AucPair, ExporterState, SystemStatus, exporter_kind, system_status

_RATE_WINDOW: Final = 30.0
"""Seconds over which rates are averaged."""
_TREND_POINTS: Final = 48


class StatusUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one poll.

    rates: records per second, by name. trends: AUC and GAUC by (model, segment), oldest first. trend_spans: the time
    that the trends of a model cover, in words.
    """

    status: SystemStatus
    rates: dict[str, float]
    trends: dict[tuple[str, str], list[AucPair]]
    trend_spans: dict[str, str]


class Poller:
    """Polls the endpoints, and remembers earlier polls to derive what has changed."""

    def __init__(
        self,
        exporters: Sequence[str],
        monitor: str,
        *,
        explicit: bool,
        timeout: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Poll these endpoints.

        Args:
            exporters: URLs of metrics endpoints.
            monitor: URL of the monitor.
            explicit: whether the user named the exporters; then all are shown, else those that have responded once.
            timeout: seconds for each endpoint to respond.
            clock: returns seconds since the epoch.
        """
        self._exporters = list(dict.fromkeys(exporters))
        self._monitor = monitor
        self._timeout = timeout
        self._clock = clock
        self._last_seen: dict[str, tuple[str, float | None]] = {}
        if explicit:
            self._last_seen = dict.fromkeys(self._exporters, ("", None))
        self._monitor_last_seen: float | None = None
        self._counts: deque[tuple[float, dict[str, int]]] = deque()
        self._own_trends: dict[tuple[str, str], deque[AucPair]] = {}

    def poll(self) -> StatusUpdate:
        """Poll all endpoints once."""
        scrape_result = scrape(self._exporters, self._monitor, timeout=self._timeout, at=self._clock())
        status = system_status(
            scrape_result,
            [*self._exporter_states(scrape_result), *self._monitor_state(scrape_result.at, scrape_result.monitor)],
        )
        self._record(status)
        trends, trend_spans = {}, {}
        for model in status.models:
            by_monitor = any(model.timeline.values())
            trend_spans[model.model] = "last 24 h" if by_monitor else "since start"
            for segment in SEGMENTS:
                own = list(self._own_trends.get((model.model, segment), ()))
                trends[model.model, segment] = model.timeline[segment] if by_monitor else own
        return StatusUpdate(status=status, rates=self._rates(), trends=trends, trend_spans=trend_spans)

    def _exporter_states(self, scrape_result: Scrape) -> list[ExporterState]:
        for answer in scrape_result.exporters:
            if answer.samples is not None:
                kind, _ = self._last_seen.get(answer.url, ("", None))
                self._last_seen[answer.url] = (exporter_kind(answer.samples) or kind, scrape_result.at)
        answers = {answer.url: answer for answer in scrape_result.exporters}
        # In the order of the configured URLs.
        return [
            self._exporter_state(answers[url], scrape_result.at) for url in self._exporters if url in self._last_seen
        ]

    def _exporter_state(self, answer: ExporterResponse, at: float) -> ExporterState:
        kind, last_seen = self._last_seen[answer.url]
        up = answer.samples is not None
        return ExporterState(
            url=answer.url,
            kind=kind,
            up=up,
            error=answer.error,
            down_seconds=None if up or last_seen is None else max(0.0, at - last_seen),
        )

    def _monitor_state(self, at: float, answer: MonitorResponse) -> list[ExporterState]:
        quality = answer.quality
        if quality is not None:
            self._monitor_last_seen = at
        last_seen = self._monitor_last_seen
        return [
            ExporterState(
                url=answer.url,
                kind="monitor's page",
                up=quality is not None,
                error=answer.error if quality is None else "" if quality.status == STATUS_READING else quality.status,
                down_seconds=None if quality is not None or last_seen is None else max(0.0, at - last_seen),
            )
        ]

    def _record(self, status: SystemStatus) -> None:
        counts = {
            "in": status.pages.get("in"),
            "emitted": status.pages.get("emitted"),
            "clicks": status.clicks.get("in"),
        }
        counts |= {f"trained {model.model}": model.trained_pages for model in status.models}
        self._counts.append((status.at, {name: count for name, count in counts.items() if count is not None}))
        while len(self._counts) > 2 and status.at - self._counts[1][0] >= _RATE_WINDOW:
            self._counts.popleft()
        for model in status.models:
            for segment in SEGMENTS:
                windows = model.quality[segment]
                pair = windows.get("5m") or windows.get(WHOLE_RUN)
                trend = self._own_trends.setdefault((model.model, segment), deque(maxlen=_TREND_POINTS))
                if pair is not None and (not trend or trend[-1] != pair):
                    trend.append(pair)

    def _rates(self) -> dict[str, float]:
        """Rates over the last 30 s; none for a count that went back because its process was restarted."""
        (since, first), (until, last) = self._counts[0], self._counts[-1]
        if until <= since:
            return {}
        return {
            name: (count - first[name]) / (until - since)
            for name, count in last.items()
            if name in first and count >= first[name]
        }
