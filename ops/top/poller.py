"""Polls exporters and the monitor repeatedly; derives rates, trends, and which exporters are down."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from prectr.ops.metrics.quality import WHOLE_RUN
from prectr.ops.monitor.current_quality import STATUS_READING
from prectr.ops.top.problems import problems
from prectr.ops.top.scrape import ExporterResponse, MonitorResponse, Scrape, scrape
from prectr.ops.top.stats import SEGMENTS, AucPair, ExporterState, SystemStatus, exporter_kind, system_status

_RATE_WINDOW: Final = 30.0
"""Seconds over which rates are averaged."""
_TREND_POINTS: Final = 48


class StatusUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one poll.

    rates: records per second, by name. problems: what is wrong, the cause of others first. trends: AUC and GAUC by
    (model, segment), oldest first. trend_spans: the time that the trends of a model cover, in words.
    """

    status: SystemStatus
    rates: dict[str, float]
    problems: list[str]
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
        self._events: int | None = None
        self._events_changed_at = 0.0
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
        rates = self._rates()
        return StatusUpdate(
            status=status,
            rates=rates,
            problems=problems(
                at=status.at,
                broker_unreachable_seconds=status.broker_unreachable_seconds,
                tasks=status.tasks,
                rates=rates,
                silence=self._silence(status),
                longest_usual_silence=status.longest_usual_silence,
            ),
            trends=trends,
            trend_spans=trend_spans,
        )

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
            "unreadable": status.unreadable,
            "rejected": _sum_known(
                status.pages.get("dead_letter"), status.clicks.get("dead_letter"), status.unreadable
            ),
            "not joined": _sum_known(*(status.clicks.get(outcome) for outcome in ("orphan", "foreign", "late"))),
        }
        self._note_input(status.at, _sum_known(counts["in"], counts["clicks"], counts["unreadable"]))
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

    def _note_input(self, at: float, events: int | None) -> None:
        if events is None or events == self._events:
            return
        self._events, self._events_changed_at = events, at

    def _silence(self, status: SystemStatus) -> float | None:
        """Seconds since an event arrived, or since this poller began if that is later; None if none ever did.

        Since an event arrived, whenever this poller began, where the tasks have read all and know when that was.
        """
        joins = [task for task in status.tasks if task.stage == "join"]
        # One record of each partition may be the marker of a transaction.
        if status.last_event_at is not None and sum(task.lag or 0 for task in joins) <= len(joins):
            return max(0.0, status.at - status.last_event_at)
        return max(0.0, status.at - self._events_changed_at) if self._events else None

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


def _sum_known(*counts: int | None) -> int | None:
    """The sum of the counts that are known; None if none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
